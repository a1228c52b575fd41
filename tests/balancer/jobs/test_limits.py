"""Both job stores bound the jobs and the audio that they hold, and each caller's part of them."""

from __future__ import annotations

import pytest

from balancer.jobs.job import JobState
from balancer.jobs.limits import JobLimits, StoreFullError
from balancer.jobs.store import JobStore
from tests.support.clock import Clock
from tests.support.jobs import ERROR, RESULT, Opened, found, job

SIZE = len(RESULT.audio)


async def finish_next(store: JobStore) -> str:
    claimed = found(await store.claims.claim_next())
    assert await store.claims.finish(claimed, RESULT)
    return claimed.id


async def test_queued_jobs_are_bounded_for_all_and_for_each_caller(opened: Opened) -> None:
    async with opened(limits=JobLimits(queued=4, share=0.5)) as store:
        await store.add([job(1), job(2)])
        with pytest.raises(StoreFullError) as full:
            await store.add([job(3)])
        assert (full.value.own, full.value.audio, full.value.used, full.value.limit) == (True, False, 2, 2)
        await store.add([job(4, caller="b")])
        await store.add([job(5, caller="c")])
        with pytest.raises(StoreFullError) as full:
            await store.add([job(6, caller="d")])
        assert (full.value.own, full.value.used, full.value.limit) == (False, 4, 4)
        await store.claims.claim_next()
        await store.add([job(6, caller="d")])


async def test_a_job_that_is_known_needs_no_room(opened: Opened) -> None:
    async with opened(limits=JobLimits(queued=1)) as store:
        await store.add([job(1, idempotency_key="k")])
        (same,) = await store.add([job(2, idempotency_key="k", request_digest="digest 1")])
        assert same.id == "job-1"


async def test_an_idempotency_key_may_occur_twice_in_a_batch(opened: Opened) -> None:
    async with opened() as store:
        added = await store.add([job(1, idempotency_key="k"), job(2, idempotency_key="k", request_digest="digest 1")])
        assert [one.id for one in added] == ["job-1", "job-1"]
        assert (await store.counts())[JobState.QUEUED] == 1


async def test_callers_and_idempotency_keys_with_colons_stay_apart(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1, caller="2001:db8::1", idempotency_key="2:x")])
        (other,) = await store.add([job(2, caller="2001:db8::1:2", idempotency_key="x", request_digest="digest 1")])
        assert other.id == "job-2"


async def test_a_caller_whose_audio_fills_its_share_waits(opened: Opened) -> None:
    limits = JobLimits(audio_bytes=4 * SIZE, share=0.5)
    async with opened(limits=limits) as store:
        await store.add([job(number) for number in range(4)])
        await finish_next(store)
        await finish_next(store)
        assert await store.retention.audio_bytes() == 2 * SIZE
        assert await store.claims.claim_next() is None, "the third job waits for room"
        with pytest.raises(StoreFullError) as full:
            await store.add([job(9)])
        assert (full.value.own, full.value.audio) == (True, True)
        await store.add([job(10, caller="other")])
        assert await finish_next(store) == "job-10"
        deleted = await store.delete("job-0")
        assert deleted.state is JobState.DONE
        assert await store.get("job-0") is None
        assert await store.audio(deleted) is None
        assert await store.retention.audio_bytes() == 2 * SIZE
        assert await finish_next(store) == "job-2"


async def test_room_for_expected_audio_is_reserved_while_a_job_runs(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=4 * SIZE, share=0.5)) as store:
        await store.add([job(number, expected_size=SIZE) for number in range(4)])
        first, second = found(await store.claims.claim_next()), found(await store.claims.claim_next())
        assert await store.claims.claim_next() is None, "two of SIZE are reserved, which is the caller's share"
        assert await store.retention.audio_bytes() == 2 * SIZE
        await store.add([job(10, caller="other", expected_size=SIZE)])
        assert await finish_next(store) == "job-10"
        await store.claims.release(second)
        assert await store.retention.audio_bytes() == 2 * SIZE, "what was reserved is given back"
        assert await store.claims.finish(first, RESULT)
        assert await finish_next(store) == "job-1"
        assert await store.claims.claim_next() is None


async def test_audio_that_is_larger_than_expected_is_not_stored_without_room(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=4 * SIZE, share=0.5)) as store:
        await store.add([job(number, expected_size=1) for number in range(3)])
        running = [found(await store.claims.claim_next()) for _ in range(3)]
        assert await store.claims.finish(running[0], RESULT)
        with pytest.raises(StoreFullError) as full:
            await store.claims.finish(running[1], RESULT)
        assert (full.value.own, full.value.audio, full.value.limit) == (True, True, 2 * SIZE)
        assert await store.claims.retry_later(running[1].expecting(SIZE), ERROR, 0.0, counts=False)
        assert await store.audio(running[1]) is None
        assert await store.claims.claim_next() is None, "it waits until there is room for all of its audio"
        assert await store.claims.fail(running[2], ERROR)
        again = found(await store.claims.claim_next())
        assert (again.id, again.attempts) == ("job-1", 1)
        assert await store.claims.finish(again, RESULT)
        assert await store.retention.audio_bytes() == 2 * SIZE


async def test_a_job_that_fits_goes_before_an_earlier_one_that_does_not(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=2 * SIZE)) as store:
        await store.add([job(1), job(2, expected_size=2 * SIZE), job(3, expected_size=SIZE)])
        await finish_next(store)
        assert await finish_next(store) == "job-3"


async def test_an_expectation_above_the_share_keeps_no_job_from_running(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=4 * SIZE, share=0.5)) as store:
        await store.add([job(1, expected_size=100 * SIZE)])
        assert await finish_next(store) == "job-1"
        assert await store.retention.audio_bytes() == SIZE


async def test_a_job_is_refused_without_room_for_what_it_is_expected_to_make(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=4 * SIZE, share=0.5)) as store:
        await store.add([job(1)])
        await finish_next(store)
        with pytest.raises(StoreFullError) as full:
            await store.add([job(2, expected_size=2 * SIZE)])
        assert (full.value.own, full.value.audio) == (True, True)
        await store.add([job(3, expected_size=2 * SIZE), job(4, expected_size=SIZE)])


async def test_audio_of_all_callers_is_bounded(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=2 * SIZE)) as store:
        await store.add([job(1)])
        await store.add([job(2, caller="b")])
        await finish_next(store)
        await finish_next(store)
        with pytest.raises(StoreFullError) as full:
            await store.add([job(3, caller="c")])
        assert (full.value.own, full.value.audio) == (False, True)


async def test_the_oldest_finished_jobs_are_evicted_where_that_is_set(opened: Opened) -> None:
    clock = Clock()
    async with opened(clock, JobLimits(audio_bytes=3 * SIZE, evicts=True)) as store:
        await store.add([job(number) for number in range(5)])
        for _ in range(5):
            clock.now += 1
            await finish_next(store)
        assert await store.retention.evict() == 2
        assert [await store.get(f"job-{number}") is None for number in range(5)] == [True, True, False, False, False]
        assert await store.retention.audio_bytes() == 3 * SIZE


async def test_only_ended_jobs_are_deleted(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        assert (await store.delete("job-1")).state is JobState.QUEUED
        assert (await store.get("job-1")).state is JobState.QUEUED
        assert await store.delete("job-9") is None
