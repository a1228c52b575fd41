"""Whose request is started when, while others come in a burst."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from balancer.http.turns import ACCEPTS_PER_START, STARTS_PER_TURN, Turns


def starts(turns: Turns, started: list[str], share: str, count: int = 1) -> None:
    def start() -> Callable[[], None]:
        return lambda: started.append(share)

    for _ in range(count):
        turns.take(share, start())


async def test_a_request_that_comes_alone_is_started_at_once() -> None:
    turns, started = Turns(), list[str]()
    starts(turns, started, "one")
    assert started == ["one"]


async def test_after_a_burst_a_request_is_started_at_once_again() -> None:
    turns, started = Turns(), list[str]()
    starts(turns, started, "many", 10)
    while len(started) < 10:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    starts(turns, started, "one")
    assert started[-1] == "one"


async def test_a_turn_of_the_event_loop_starts_a_few() -> None:
    turns, started = Turns(), list[str]()
    starts(turns, started, "many", 100)
    for number in range(1, 6):
        assert len(started) == number * STARTS_PER_TURN
        await asyncio.sleep(0)


async def test_addresses_take_turns() -> None:
    turns, started = Turns(), list[str]()
    starts(turns, started, "many", 100)
    starts(turns, started, "few", 2)
    while "few" not in started:
        await asyncio.sleep(0)
    assert len(started) <= 3 * STARTS_PER_TURN
    while started.count("few") < 2:
        await asyncio.sleep(0)
    assert started.count("many") <= 3 * STARTS_PER_TURN
    while len(started) < 102:
        await asyncio.sleep(0)


async def test_connections_are_accepted_before_requests_are_started() -> None:
    turns, started = Turns(), list[str]()
    starts(turns, started, "many", 100)
    del started[:]
    for _ in range(2 * ACCEPTS_PER_START + 2):  # as many turns of the event loop, each with a new connection
        turns.accepted()
        await asyncio.sleep(0)
    assert 1 <= len(started) <= 2
    while len(started) < 100 - STARTS_PER_TURN:
        await asyncio.sleep(0)
