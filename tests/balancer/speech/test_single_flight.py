from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from balancer.dispatch.early_audio import EarlyAudio
from balancer.scheduling.priority import Priority
from balancer.scheduling.queued_utterance import Terms
from balancer.speech.place import Place
from balancer.speech.single_flight import SingleFlight


class Work:
    """Counts its executions; each ends when `result` is set."""

    def __init__(self) -> None:
        self.executions = 0
        self.cancelled = 0
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.executions += 1
        try:
            return await asyncio.shield(self.result)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def call_concurrently(
    flights: SingleFlight[str], work: Work, number: int, key: str = "a"
) -> list[asyncio.Task[tuple[str, bool]]]:
    tasks = [asyncio.create_task(flights.do(key, work)) for _ in range(number)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_fifty_concurrent_calls_share_one_execution() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    tasks = await call_concurrently(flights, work, 50)
    work.result.set_result("audio")
    assert await asyncio.gather(*tasks) == [("audio", False)] + [("audio", True)] * 49
    assert work.executions == 1
    assert "a" not in flights


async def test_different_keys_do_not_share() -> None:
    flights: SingleFlight[str] = SingleFlight()
    one, other = Work(), Work()
    tasks = await call_concurrently(flights, one, 2, "a") + await call_concurrently(flights, other, 2, "b")
    one.result.set_result("one")
    other.result.set_result("other")
    assert [result for result, _ in await asyncio.gather(*tasks)] == ["one", "one", "other", "other"]
    assert (one.executions, other.executions) == (1, 1)


async def test_the_first_caller_may_be_cancelled() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    first, second = await call_concurrently(flights, work, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert work.cancelled == 0
    work.result.set_result("audio")
    assert await second == ("audio", True)


async def test_the_execution_is_cancelled_with_its_last_caller() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    for task in await call_concurrently(flights, work, 3):
        task.cancel()
    await asyncio.sleep(0)
    assert "a" not in flights
    (task,) = await call_concurrently(flights, work, 1)
    work.result.set_result("audio")
    assert await task == ("audio", False)
    assert (work.executions, work.cancelled) == (2, 1)


async def test_a_failure_reaches_every_caller_and_is_not_kept() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    tasks = await call_concurrently(flights, work, 3)
    work.result.set_exception(ValueError("no"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 3
    assert "a" not in flights


async def test_a_call_while_after_runs_gets_the_same_result() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    work.result.set_result("audio")
    may_store = asyncio.Event()
    stored: list[str] = []

    async def store(result: str) -> None:
        await may_store.wait()
        stored.append(result)

    assert await flights.do("a", work, store) == ("audio", False)
    assert await flights.do("a", work, store) == ("audio", True)
    assert (work.executions, stored) == (1, [])
    may_store.set()
    while "a" in flights:
        await asyncio.sleep(0)
    assert stored == ["audio"]


async def test_a_shared_execution_waits_in_the_best_place_of_its_callers() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    batch, interactive = (Place(Terms("caller", priority)) for priority in (Priority.BATCH, Priority.INTERACTIVE))
    seen: list[Terms] = []
    with batch.followed_by(seen.append):
        first = asyncio.create_task(flights.do("a", work, place=batch))
        await asyncio.sleep(0)
        second = asyncio.create_task(flights.do("a", work, place=interactive))
        await asyncio.sleep(0)
        assert batch.terms.priority is Priority.INTERACTIVE
        assert seen == [interactive.terms]
        later = Terms("another", Priority.INTERACTIVE)
        interactive.improve(later)
        assert seen == [interactive.terms, later], "also what joins the one that has joined"
        work.result.set_result("audio")
        await asyncio.gather(first, second)


async def test_a_caller_that_joins_gets_what_was_handed_on_and_then_the_rest() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    heard: list[list[bytes]] = [[], []]
    earlies = [EarlyAudio(pieces.append) for pieces in heard]
    first = asyncio.create_task(flights.do("a", work, early=earlies[0]))
    await asyncio.sleep(0)
    earlies[0].add(b"1")
    others = [asyncio.create_task(flights.do("a", work, early=early)) for early in (earlies[1], None)]
    await asyncio.sleep(0)
    assert heard == [[b"1"], [b"1"]]
    first.cancel()
    await asyncio.sleep(0)
    earlies[0].add(b"2")
    assert heard[1] == [b"1", b"2"], "the execution goes on for the others"
    work.result.set_result("audio")
    assert [await other for other in others] == [("audio", True)] * 2


class Audio:
    """What an execution has in its hands when it fails."""


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_failed_execution_leaves_nothing_to_the_garbage_collector(cancelled: bool) -> None:
    flights: SingleFlight[str] = SingleFlight()
    held: list[weakref.ref[Audio]] = []
    goes_on = asyncio.Event()

    async def work() -> str:
        audio = Audio()
        held.append(weakref.ref(audio))
        await goes_on.wait()
        raise ValueError(audio)

    gc.disable()
    try:
        calls = [asyncio.create_task(flights.do("a", work)) for _ in range(2)]
        while not held:
            await asyncio.sleep(0)
        if cancelled:
            for call in calls:
                call.cancel()
        else:
            goes_on.set()
        await asyncio.wait(calls)
        for call in calls:
            assert call.cancelled() or isinstance(call.exception(), ValueError)
        del call, calls
        while "a" in flights:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the loop lets the task go
        assert held[0]() is None
    finally:
        gc.enable()
