"""Attacks on the processes: standard output that nobody reads, a balancer that is stopped or killed."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress

import psutil

from scripts.attacks.attack import Attack, Checks, Criteria
from scripts.attacks.target import ChorusPlan, Target, eventually
from scripts.attacks.texts import CACHED_TEXT, new_text
from scripts.attacks.wire import ATTACKER, NoAnswerError
from scripts.support.check import Check

LOGGED_REQUESTS = 2500
"""A pipe takes the lines of some 1,150 requests."""
UNREAD_SECONDS = 25.0
CLIENTS = 8

WATCHDOG_SECONDS = 5
REPLACED_SECONDS = 30.0
"""Time within which a balancer that hangs is replaced."""
KILLS = 3
BACK_SECONDS = 5.0
"""Time within which a balancer that was killed is back."""


async def unread_output(target: Target) -> Checks:
    """Nobody reads the log while requests are answered."""
    if target.log_pipe is None:
        raise target.server.failure("its output goes to no pipe")
    answered, until = 0, time.monotonic() + UNREAD_SECONDS

    async def client() -> None:
        nonlocal answered
        while answered < LOGGED_REQUESTS and time.monotonic() < until:
            if await target.speech_status(CACHED_TEXT, cached=True, source=ATTACKER, timeout=5.0) != "200":
                return
            answered += 1

    target.log_pipe.reading.clear()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
        try:
            ready = str((await target.ask("GET", "/ready", timeout=5.0)).status)
        except NoAnswerError as error:
            ready = str(error)
    finally:
        target.log_pipe.reading.set()
    return [
        Check(f"requests answered (at least {LOGGED_REQUESTS})", str(answered), answered >= LOGGED_REQUESTS),
        Check("/ready while nobody reads", ready, ready == "200"),
    ]


async def balancer_stopped(target: Target) -> Checks:
    """The balancer hangs, as SIGSTOP makes it."""
    balancer = target.balancer()
    if balancer is None:
        raise target.server.failure("there is no balancer")
    balancer.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    try:
        replaced = await eventually(lambda: _speaks(target), REPLACED_SECONDS)
        seconds = time.monotonic() - started
    finally:
        with suppress(psutil.NoSuchProcess):
            balancer.send_signal(signal.SIGCONT)
    value = f"{seconds:.1f} s" if replaced else "not"
    return [Check(f"another one serves (at most {REPLACED_SECONDS:g} s)", value, replaced)]


async def balancer_killed(target: Target) -> Checks:
    """The balancer is killed, three times."""
    slowest = 0.0
    for _ in range(KILLS):
        if (balancer := target.balancer()) is not None:
            balancer.kill()
        started = time.monotonic()
        await eventually(lambda: _speaks(target), REPLACED_SECONDS, interval=0.02)
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(2.0)
    return [Check(f"it speaks again (at most {BACK_SECONDS:g} s)", f"{slowest:.1f} s", slowest <= BACK_SECONDS)]


async def _speaks(target: Target) -> bool:
    return await target.speech_status(new_text(), timeout=3.0) == "200"


REPLACED = Criteria(latency=False, failures=False, same_balancer=False)

ATTACKS = (
    Attack("unread-output", "nobody reads standard output", unread_output, ChorusPlan(log_pipe=True), max_seconds=60),
    Attack(
        "balancer-stopped",
        "SIGSTOP of the balancer",
        balancer_stopped,
        ChorusPlan({"balancer_watchdog_seconds": WATCHDOG_SECONDS}),
        REPLACED,
    ),
    Attack(
        "balancer-killed", "kill -9 of the balancer, three times", balancer_killed, criteria=REPLACED, max_seconds=120
    ),
)
