"""Segments come in any order, are taken in theirs, and are not made far ahead of what is sent."""

from __future__ import annotations

import asyncio

import pytest

from balancer.errors import SynthesisError
from balancer.speech.segment_buffer import SegmentBuffer


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_segments_are_taken_in_order() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    taking = [asyncio.create_task(buffer.take()) for _ in range(1)]
    await buffer.add(1, "b", 1.0)
    await settle()
    assert not taking[0].done()
    await buffer.add(0, "a", 1.0)
    assert await taking[0] == "a"
    assert await buffer.take() == "b"


async def test_whoever_adds_waits_until_enough_has_been_sent() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    await buffer.add(0, "a", 6.0)
    adding = [asyncio.create_task(buffer.add(number, "", 6.0)) for number in (2, 1)]
    await settle()
    assert not any(task.done() for task in adding)
    assert buffer.unsent == 18.0
    assert await buffer.take() == "a"
    await settle()
    assert not any(task.done() for task in adding), "it has been taken, but not sent"
    buffer.sent()
    await settle()
    assert not any(task.done() for task in adding)
    await buffer.take()
    buffer.sent()
    await asyncio.gather(*adding)
    assert buffer.unsent == 6.0


async def test_what_is_finished_is_taken_before_an_error_is_raised() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    await buffer.add(0, "a", 1.0)
    buffer.fail(SynthesisError("no"))
    assert await buffer.take() == "a"
    with pytest.raises(SynthesisError, match="no"):
        await buffer.take()


async def test_an_error_reaches_who_waits() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    taking = asyncio.create_task(buffer.take())
    await settle()
    buffer.fail(SynthesisError("no"))
    with pytest.raises(SynthesisError):
        await taking


async def test_pieces_of_the_next_segment_come_before_its_end() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    taking = asyncio.create_task(buffer.take())
    buffer.extend(1, b"later")
    await settle()
    assert not taking.done(), "another segment comes first"
    buffer.extend(0, b"a")
    assert await taking == b"a"
    buffer.extend(0, b"b")
    await buffer.add(0, "ab", 1.0)
    assert await buffer.take() == "ab", "the finished segment has the rest"
    assert await buffer.take() == b"later"


async def test_pieces_are_taken_before_an_error_is_raised() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    buffer.extend(0, b"a")
    buffer.fail(SynthesisError("no"))
    assert await buffer.take() == b"a"
    with pytest.raises(SynthesisError, match="no"):
        await buffer.take()


async def test_what_was_not_taken_can_be_dropped() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(100.0)
    buffer.extend(1, b"piece")
    await buffer.add(0, "segment", 1.0)
    buffer.clear()
    buffer.fail(ValueError("the end"))
    with pytest.raises(ValueError, match="the end"):
        await buffer.take()


async def test_a_change_is_waited_for_no_longer_than_is_said() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    await buffer.changed(0.001)
    async with asyncio.timeout(60):
        waiting = asyncio.create_task(buffer.changed(3600))
        await settle()
        assert not waiting.done()
        await buffer.add(0, "a", 1.0)
        await waiting
        waiting = asyncio.create_task(buffer.changed(3600))
        await settle()
        buffer.fail(SynthesisError("broken"))
        with pytest.raises(SynthesisError, match="broken"):
            await waiting


async def test_it_is_full_when_adders_wait() -> None:
    buffer: SegmentBuffer[str] = SegmentBuffer(10.0)
    await buffer.add(0, "a", 6.0)
    assert not buffer.full
    adding = asyncio.create_task(buffer.add(1, "b", 6.0))
    await settle()
    assert buffer.full
    await buffer.take()
    buffer.sent()
    assert not buffer.full
    await adding
