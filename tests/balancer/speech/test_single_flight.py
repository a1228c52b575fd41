from __future__ import annotations

import asyncio

import pytest

from balancer.speech.single_flight import SingleFlight


class Work:
    """Counts how often it was begun; it ends when told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            return await asyncio.shield(self.result)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def joined(
    coalescer: SingleFlight[str], work: Work, number: int, key: str = "a"
) -> list[asyncio.Task[tuple[str, bool]]]:
    tasks = [asyncio.create_task(coalescer.do(key, work)) for _ in range(number)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_fifty_at_once_are_one_piece_of_work() -> None:
    coalescer: SingleFlight[str] = SingleFlight()
    work = Work()
    tasks = await joined(coalescer, work, 50)
    work.result.set_result("audio")
    assert await asyncio.gather(*tasks) == [("audio", False)] + [("audio", True)] * 49
    assert work.begun == 1
    assert "a" not in coalescer


async def test_other_keys_are_other_work() -> None:
    coalescer: SingleFlight[str] = SingleFlight()
    one, other = Work(), Work()
    tasks = await joined(coalescer, one, 2, "a") + await joined(coalescer, other, 2, "b")
    one.result.set_result("one")
    other.result.set_result("other")
    assert [result for result, _ in await asyncio.gather(*tasks)] == ["one", "one", "other", "other"]
    assert (one.begun, other.begun) == (1, 1)


async def test_the_first_to_come_may_leave() -> None:
    coalescer: SingleFlight[str] = SingleFlight()
    work = Work()
    first, second = await joined(coalescer, work, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert work.cancelled == 0
    work.result.set_result("audio")
    assert await second == ("audio", True)


async def test_when_all_have_left_the_work_ends_and_the_next_begins_anew() -> None:
    coalescer: SingleFlight[str] = SingleFlight()
    work = Work()
    for task in await joined(coalescer, work, 3):
        task.cancel()
    await asyncio.sleep(0)
    assert "a" not in coalescer
    (task,) = await joined(coalescer, work, 1)
    work.result.set_result("audio")
    assert await task == ("audio", False)
    assert (work.begun, work.cancelled) == (2, 1)


async def test_a_failure_is_everybodys_and_is_not_remembered() -> None:
    coalescer: SingleFlight[str] = SingleFlight()
    work = Work()
    tasks = await joined(coalescer, work, 3)
    work.result.set_exception(ValueError("no"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 3
    assert "a" not in coalescer


async def test_who_comes_while_the_result_is_put_away_still_gets_it() -> None:
    coalescer: SingleFlight[str] = SingleFlight()
    work = Work()
    work.result.set_result("audio")
    away = asyncio.Event()
    kept: list[str] = []

    async def keep(result: str) -> None:
        await away.wait()
        kept.append(result)

    assert await coalescer.do("a", work, keep) == ("audio", False)
    assert await coalescer.do("a", work, keep) == ("audio", True)
    assert (work.begun, kept) == (1, [])
    away.set()
    while "a" in coalescer:
        await asyncio.sleep(0)
    assert kept == ["audio"]
