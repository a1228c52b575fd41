"""Attacks by clients that do not read what they asked for."""

from __future__ import annotations

import asyncio
import time

from scripts.attacks.attack import ENDS_SERVER, Attack, Checks, Criteria
from scripts.attacks.connections import CUT_SECONDS, SHORT_LIMITS
from scripts.attacks.target import ChorusPlan, Target
from scripts.attacks.texts import long_text
from scripts.attacks.wire import ATTACKER, attackers, held_connections, is_open, post, request_head
from scripts.support.check import Check
from scripts.support.servers import STOP_SECONDS

LARGE = {"text": long_text(4990, 4), "speed": 0.25, "format": "wav"}
"""Some 60 MB of audio."""
LARGE_SECONDS = 120.0
"""Time within which it is made."""
DOCS = request_head("GET", "/docs/assets/swagger-editor-bundle.js", close=False)
SMALL_BUFFER = 4096
RESTART_SECONDS = 60.0
"""Time of a rolling restart of two workers and the balancer."""
SPARE_STOP_SECONDS = 10.0
"""Time that a stop may take beyond the grace period."""


async def unread_answers(target: Target) -> Checks:
    """Readers of a large cached answer, as audio and as JSON, that read nothing."""
    first = await target.ask("POST", "/tts", LARGE, source=ATTACKER, timeout=LARGE_SECONDS)
    requests = (post("/tts", LARGE), post("/tts-json", LARGE))
    with held_connections(target.port, 20, data=requests, sources=attackers(5), receive_buffer=SMALL_BUFFER) as readers:
        await asyncio.sleep(CUT_SECONDS)
        still_open = sum(map(is_open, readers))
    return [
        Check("the answer is made once", str(first.status), first.status == 200),
        Check(f"readers still served after {CUT_SECONDS:g} s", f"{still_open} of 20", not still_open),
    ]


async def rolling_restart(target: Target) -> Checks:
    """A rolling restart while readers of a page of the documentation read nothing."""
    with held_connections(target.port, 4, data=(DOCS,), receive_buffer=SMALL_BUFFER):
        await asyncio.sleep(0.5)
        started = time.monotonic()
        try:
            done = await target.command("restart", "--rolling", timeout=RESTART_SECONDS)
            value, holds = f"{time.monotonic() - started:.0f} s, exit code {done.returncode}", done.returncode == 0
        except TimeoutError:
            value, holds = f"not within {RESTART_SECONDS:g} s", False
    return [Check("the restart", value, holds)]


async def stop(target: Target) -> Checks:
    """A stop while readers of a page of the documentation read nothing, and others are silent."""
    limit = STOP_SECONDS + SPARE_STOP_SECONDS
    log_size = target.log.stat().st_size
    with held_connections(target.port, 8, data=(DOCS, b"GET /ready HTTP/1.1\r\nHo"), receive_buffer=SMALL_BUFFER):
        await asyncio.sleep(0.5)
        started = time.monotonic()
        target.server.process.terminate()
        while target.server.process.poll() is None and time.monotonic() < started + limit:
            await asyncio.sleep(0.1)
    code = target.server.process.poll()
    killed = b"SIGKILL" in target.log.read_bytes()[log_size:]
    return [
        Check("seconds of the stop", f"{time.monotonic() - started:.1f} (at most {limit:g})", code is not None),
        Check("its exit code", str(code), code == 0),
        Check("the balancer was killed", "yes" if killed else "no", not killed),
    ]


ATTACKS = (
    Attack(
        "unread-answers",
        "20 readers of 60 MB of cached audio that read nothing",
        unread_answers,
        ChorusPlan(SHORT_LIMITS, descriptors="4096:"),
        max_seconds=180,
    ),
    Attack(
        "unread-restart",
        "a rolling restart with readers that read nothing",
        rolling_restart,
        criteria=Criteria(same_balancer=False),
        max_seconds=RESTART_SECONDS + 15,
    ),
    Attack("unread-stop", "a stop with readers that read nothing", stop, criteria=ENDS_SERVER),
)
