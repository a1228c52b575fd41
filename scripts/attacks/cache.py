"""Attacks on the audio cache: one caller's large files against the entries of others."""

from __future__ import annotations

from scripts.attacks.attack import Attack, Checks
from scripts.attacks.readers import LARGE, LARGE_SECONDS
from scripts.attacks.target import ChorusPlan, Target
from scripts.attacks.texts import new_text
from scripts.attacks.wire import ATTACKER
from scripts.support.check import Check

ENTRIES = 12
CACHE_MIB = 256


async def evict_others(target: Target) -> Checks:
    """One caller asks for a text at ever new speeds, 60 MB each, in a cache of 256 MiB."""
    texts = [new_text() for _ in range(ENTRIES)]
    for text in texts:
        await target.speak(text, cached=True)
    before = [await _outcome(target, text) for text in texts]
    statuses = []
    for number in range(8):
        body = LARGE | {"speed": 0.25 + number / 10_000}
        statuses.append((await target.ask("POST", "/tts", body, source=ATTACKER, timeout=LARGE_SECONDS)).status)
    after = [await _outcome(target, text) for text in texts]
    return [
        Check("hits of another caller before", f"{before.count('hit')} of {ENTRIES}", before.count("hit") == ENTRIES),
        Check("the attacker's answers", str(statuses), holds=True),
        Check("hits of another caller afterwards", f"{after.count('hit')} of {ENTRIES}", after.count("hit") == ENTRIES),
    ]


async def _outcome(target: Target, text: str) -> str:
    return (await target.speak(text, cached=True)).headers.get("x-cache", "")


ATTACKS = (
    Attack(
        "cache-eviction",
        "480 MB of one caller in a cache of 256 MiB",
        evict_others,
        ChorusPlan({"cache_mib": CACHE_MIB}),
        max_seconds=300,
    ),
)
