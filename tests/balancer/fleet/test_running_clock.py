from __future__ import annotations

import asyncio
import socket
import time

import pytest

from balancer.fleet.running_clock import RunningClock, RunningTimeout


def hold_up(seconds: float) -> None:
    """Hold up the event loop, as a suspended process is."""
    time.sleep(seconds)


async def test_a_block_is_ended_in_time() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TimeoutError):
        async with RunningTimeout(0.2):
            await asyncio.Event().wait()
    assert loop.time() - started > 0.19  # timers may be a millisecond early


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    async with RunningTimeout(0.05):
        pass
    await asyncio.sleep(0.1)


async def test_what_arrived_while_the_loop_was_held_up_is_seen_before_the_limit() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        async with RunningTimeout(0.4):
            reading = asyncio.create_task(asyncio.get_running_loop().sock_recv(ours, 1))
            await asyncio.sleep(0.1)
            theirs.send(b"!")
            hold_up(2.0)
            assert await reading == b"!"


async def test_a_pause_of_the_loop_counts_as_one_step_of_the_clock() -> None:
    clock = RunningClock(0.1)
    clock.tick()
    hold_up(1.0)
    clock.tick()
    assert clock.now == pytest.approx(0.1)
    await asyncio.sleep(0.05)
    clock.tick()
    assert 0.14 < clock.now < 0.21  # timers may be a millisecond early
