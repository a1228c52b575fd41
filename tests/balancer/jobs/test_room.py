"""What both job stores hold is bounded, and so is each caller's part of it."""

from __future__ import annotations

import pytest

from balancer.jobs.job import JobState
from balancer.jobs.store import JobLimits, JobStore, StoreFullError
from tests.support.clock import Clock
from tests.support.jobs import RESULT, Opened, found, job

SIZE = len(RESULT.audio)


async def finish_next(store: JobStore) -> str:
    claimed = found(await store.claim())
    assert await store.finish(claimed, RESULT)
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
        await store.claim()
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
        assert await store.audio_bytes() == 2 * SIZE
        assert await store.claim() is None, "the third job waits for room"
        with pytest.raises(StoreFullError) as full:
            await store.add([job(9)])
        assert (full.value.own, full.value.audio) == (True, True)
        await store.add([job(10, caller="other")])
        assert await finish_next(store) == "job-10"
        deleted = await store.delete("job-0")
        assert deleted.state is JobState.DONE
        assert await store.get("job-0") is None
        assert await store.audio(deleted) is None
        assert await store.audio_bytes() == 2 * SIZE
        assert await finish_next(store) == "job-2"


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
        assert await store.evict() == 2
        assert [await store.get(f"job-{number}") is None for number in range(5)] == [True, True, False, False, False]
        assert await store.audio_bytes() == 3 * SIZE


async def test_only_ended_jobs_are_deleted(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        assert (await store.delete("job-1")).state is JobState.QUEUED
        assert (await store.get("job-1")).state is JobState.QUEUED
        assert await store.delete("job-9") is None
