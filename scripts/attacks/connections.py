"""Attacks by connections: silent ones, slow ones, clients that leave, streams of events."""

from __future__ import annotations

import asyncio
import time

from scripts.attacks.attack import Attack, Checks, Criteria, all_spoken
from scripts.attacks.target import SOFT_DESCRIPTORS, ChorusPlan, Target
from scripts.attacks.texts import long_text, new_text
from scripts.attacks.wire import (
    ATTACKER,
    OTHER,
    attackers,
    connect,
    held_connections,
    is_open,
    post,
    push,
    request_head,
)
from scripts.support.check import Check

SHORT_LIMITS = {"head_seconds": 3, "body_seconds": 3, "write_seconds": 5}
"""Time limits of the server's connections, so that an attack need not wait for the usual ones."""
CUT_SECONDS = 12.0
"""Time after which all slow connections must be closed under SHORT_LIMITS."""
NO_STORE = (("Cache-Control", "no-store"),)

HALF_HEAD = b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A:"
HALF_BODY = (
    request_head("POST", "/tts", (("Content-Type", "application/json"), ("Content-Length", "1000")), close=False) + b"{"
)


async def silent_connections(target: Target) -> Checks:
    """More connections than the process may have descriptors, from many addresses, while others have requests."""
    in_flight = [asyncio.create_task(target.speech_status(long_text(1500, seed))) for seed in range(4)]
    await asyncio.sleep(0.3)
    with held_connections(target.port, 1100, sources=attackers(60)) as held:
        newcomers = []
        started = time.monotonic()
        while time.monotonic() < started + target.duration:
            newcomers.append(await target.speech_status(new_text()))
            await asyncio.sleep(0.25)
        accepted = len(held)
    before = await asyncio.gather(*in_flight)
    return [
        Check(f"connections made under a limit of {SOFT_DESCRIPTORS}", str(accepted), holds=True),
        all_spoken("requests in flight when it began", before),
        all_spoken("requests of others meanwhile", newcomers),
    ]


async def slow_requests(target: Target) -> Checks:
    """Silent connections, half heads, half bodies, and heads and bodies that arrive byte by byte."""
    sources = attackers(30)
    with (
        held_connections(target.port, 450, data=(b"", HALF_HEAD, HALF_BODY), sources=sources) as waiting,
        held_connections(target.port, 60, data=(HALF_HEAD, HALF_BODY), sources=sources) as dripping,
    ):
        started = time.monotonic()
        while time.monotonic() < started + CUT_SECONDS:
            await asyncio.sleep(0.5)
            for client in dripping:
                push(client, b"a")
        still_waiting, still_dripping = (sum(map(is_open, clients)) for clients in (waiting, dripping))
    return [
        Check(f"silent and half sent, open after {CUT_SECONDS:g} s", f"{still_waiting} of 450", not still_waiting),
        Check(f"sent byte by byte, open after {CUT_SECONDS:g} s", f"{still_dripping} of 60", not still_dripping),
    ]


async def hang_ups(target: Target) -> Checks:
    """Clients that leave in the middle of a request's body."""
    count = 300
    errors, log_size = await target.server_errors(), target.log.stat().st_size
    for number in range(count):
        connect(target.port, HALF_BODY, source=attackers(30)[number % 30]).close()
        await asyncio.sleep(0.003)
    await asyncio.sleep(1.0)
    errors = await target.server_errors() - errors
    lines = target.log.read_bytes()[log_size:].count(b"\n")
    return [
        Check("counted as the server's errors", f"{errors:g} of {count}", errors == 0),
        Check("lines of log each", f"{lines / count:.1f} (at most 4)", lines <= 4 * count),
    ]


async def pipelined_leavers(target: Target) -> Checks:
    """Clients that send a request with another one behind it, and leave."""
    cancelled = (await target.metrics()).get("chorus_cancellations_total", 0.0)
    for number in range(60):
        body = {"text": long_text(4900, 10_000 + number)}
        request = post("/tts", body, NO_STORE, close=False) + request_head("GET", "/ready", close=False)
        client = connect(target.port, request, source=ATTACKER)
        await asyncio.sleep(0.01)
        client.close()
    await asyncio.sleep(2.0)
    health = await target.health()
    waiting = health["queueDepth"]
    other = await target.speech_status(new_text())
    cancelled = (await target.metrics()).get("chorus_cancellations_total", 0.0) - cancelled
    return [
        Check("requests of nobody in the queue after 2 s", f"{waiting} of 60", waiting == 0),
        Check("cancellations noticed", f"{cancelled:g}", holds=True),
        all_spoken("another caller's request", [other]),
    ]


async def event_streams(target: Target) -> Checks:
    """Streams of events on the last of thousands of queued jobs."""
    bodies = [{"text": long_text(4900, number)} for number in range(30)]
    bodies += [{"text": f"Job {number}."} for number in range(4400)]
    queued = await target.queue(*bodies, source=ATTACKER)
    if queued.status != 202:
        return [Check("jobs of one caller", f"HTTP {queued.status}", holds=False)]
    last = queued.json()["jobs"][-1]["requestId"]
    request = request_head("GET", f"/status/{last}", (("Accept", "text/event-stream"),), close=False)
    slowest = 0.0
    with held_connections(target.port, 800, data=(request,), sources=attackers(20)) as held:
        started = time.monotonic()
        while time.monotonic() < started + target.duration:
            asked = time.monotonic()
            await target.queue({"text": "A job of another caller."}, source=OTHER)
            slowest = max(slowest, time.monotonic() - asked)
            await asyncio.sleep(0.3)
    return [
        Check("streams asked for", str(len(held)), holds=True),
        Check("another caller's POST /queue, slowest", f"{slowest * 1000:.0f} ms (at most 1000 ms)", slowest <= 1.0),
    ]


ATTACKS = (
    Attack(
        "silent-connections",
        "1,100 connections without a byte, with 1,024 descriptors in all",
        silent_connections,
        ChorusPlan(descriptors=f"{SOFT_DESCRIPTORS}:{SOFT_DESCRIPTORS}"),
    ),
    Attack(
        "slow-requests",
        "510 connections that are silent, or send half a head or body, or a byte at a time",
        slow_requests,
        ChorusPlan(SHORT_LIMITS, descriptors="4096:"),
    ),
    Attack("hang-ups", "300 clients that leave while they send a body", hang_ups),
    Attack("pipelined-leavers", "60 clients that pipeline a second request and leave", pipelined_leavers),
    Attack(
        "event-streams",
        "800 event streams on the last of 4,430 queued jobs",
        event_streams,
        ChorusPlan(descriptors="4096:"),
        Criteria(idle=False),
    ),
)
