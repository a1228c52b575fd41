"""Attacks by the encoders: no worker is needed for cached audio at another speed, or within JSON."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from scripts.attacks.attack import Attack, Checks
from scripts.attacks.readers import LARGE, LARGE_SECONDS
from scripts.attacks.target import ChorusPlan, Target
from scripts.attacks.texts import long_text, new_text
from scripts.attacks.wire import ATTACKER, NoAnswerError
from scripts.support.check import Check

OTHERS = ("new text as mp3", "POST /queue")
MAX_OTHER_SECONDS = 5.0
"""Time within which another caller's short text must be encoded, and its job accepted."""


async def _encode_many(target: Target, requests: int, audio_format: str) -> Checks:
    """One caller has a long text that is cached encoded at ever new speeds; another one has short texts."""
    text = long_text(4990, 4)
    first = await target.speech_status(text, cached=True, source=ATTACKER, timeout=LARGE_SECONDS)
    encoding = [
        asyncio.create_task(
            target.speech_status(text, cached=True, source=ATTACKER, speed=0.25 + number / 10_000, format=audio_format)
        )
        for number in range(requests)
    ]
    slowest = dict.fromkeys(OTHERS, 0.0)
    failed: Counter[str] = Counter()
    until = time.monotonic() + target.duration
    try:
        await asyncio.sleep(0.5)
        while time.monotonic() < until and not all(task.done() for task in encoding):
            for name in OTHERS:
                started = time.monotonic()
                failed[await _other(target, name)] += 1
                slowest[name] = max(slowest[name], time.monotonic() - started)
    finally:
        for task in encoding:
            task.cancel()  # the client hangs up
        answered = Counter(str(result) for result in await asyncio.gather(*encoding, return_exceptions=True))
    bad = {status: count for status, count in failed.items() if status not in {"200", "202"}}
    return [
        Check("the text is synthesized once", first, first == "200"),
        Check("the attacker's answers", str(dict(answered)), holds=True),
        Check("another caller's answers", f"{failed.total()}, of which bad: {bad or 0}", not bad),
        *(
            Check(
                f"another caller's {name}, slowest",
                f"{value:.1f} s (at most {MAX_OTHER_SECONDS:g} s)",
                value <= MAX_OTHER_SECONDS,
            )
            for name, value in slowest.items()
        ),
    ]


async def _other(target: Target, name: str) -> str:
    if name == "POST /queue":
        try:
            return str((await target.ask("POST", "/queue", {"text": new_text()})).status)
        except NoAnswerError as error:
            return str(error)
    return await target.speech_status(new_text(), format="mp3")


async def encode_mp3(target: Target) -> Checks:
    """12 requests as mp3."""
    return await _encode_many(target, 12, "mp3")


async def encode_opus(target: Target) -> Checks:
    """40 requests as opus."""
    return await _encode_many(target, 40, "opus")


async def json_audio(target: Target) -> Checks:
    """Eight requests at once for 60 MB of cached audio within JSON."""
    await target.ask("POST", "/tts", LARGE, source=ATTACKER, timeout=LARGE_SECONDS)

    async def status() -> str:
        try:
            return str((await target.ask("POST", "/tts-json", LARGE, source=ATTACKER, timeout=20.0)).status)
        except NoAnswerError as error:
            return str(error)

    statuses = Counter(await asyncio.gather(*(status() for _ in range(8))))
    bad = statuses.keys() - {"200", "413", "429", "503"}
    return [Check("their answers", str(dict(statuses)), not bad)]


ATTACKS = (
    Attack(
        "encode-mp3",
        "12 x mp3 of a long cached text at new speeds",
        encode_mp3,
        ChorusPlan({"cache_mib": 4096}),
        max_seconds=200,
    ),
    Attack(
        "encode-opus",
        "40 x opus of a long cached text at new speeds",
        encode_opus,
        ChorusPlan({"cache_mib": 4096}),
        max_seconds=200,
    ),
    Attack(
        "json-audio",
        "8 x JSON with 60 MB of cached audio",
        json_audio,
        ChorusPlan({"cache_mib": 4096}),
        max_seconds=200,
    ),
)
