"""Segments are begun in order, as many at once as there are slots."""

from __future__ import annotations

import asyncio

import pytest

from balancer.speech.concurrent_segments import speak_all


class Speaker:
    """Speaks segments, each until it is let go."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.ends: dict[int, asyncio.Future[None]] = {}

    async def __call__(self, number: int) -> None:
        self.begun.append(number)
        self.ends[number] = asyncio.get_running_loop().create_future()
        try:
            await self.ends[number]
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_as_many_are_spoken_at_once_as_there_are_slots_now() -> None:
    speaker, slots = Speaker(), 2
    speaking = asyncio.create_task(speak_all(range(6), speaker, lambda: slots, lambda: False))
    await settle()
    assert speaker.begun == [0, 1]
    slots = 3
    speaker.ends[1].set_result(None)
    await settle()
    assert speaker.begun == [0, 1, 2, 3]
    slots = 0
    for number in (0, 2, 3):
        speaker.ends[number].set_result(None)
        await settle()
    assert speaker.begun == [0, 1, 2, 3, 4], "one at least"
    speaker.ends[4].set_result(None)
    await settle()
    speaker.ends[5].set_result(None)
    await speaking


async def test_none_is_begun_once_it_stops() -> None:
    speaker, stops = Speaker(), False
    speaking = asyncio.create_task(speak_all(range(3), speaker, lambda: 1, lambda: stops))
    await settle()
    stops = True
    speaker.ends[0].set_result(None)
    await speaking
    assert speaker.begun == [0]


async def test_a_failure_cancels_the_others() -> None:
    speaker = Speaker()
    speaking = asyncio.create_task(speak_all(range(3), speaker, lambda: 2, lambda: False))
    await settle()
    speaker.ends[1].set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await speaking
    assert speaker.cancelled == [0]
