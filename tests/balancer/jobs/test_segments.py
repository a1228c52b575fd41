"""Both job stores keep the finished segments of jobs until these have ended, and count them as their callers' audio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.job import Job, JobState
from balancer.jobs.limits import JobLimits, StoreFullError
from balancer.jobs.store import LONG_CHARACTERS, JobResult, JobStore
from tests.support.clock import Clock
from tests.support.jobs import ERROR, RESULT, Opened, found, job

LONG = LONG_CHARACTERS + 1


def pcm(number: int) -> MemoryBuffer:
    return MemoryBuffer(bytes([number]) * (100 + number))


async def begun(store: JobStore, *numbers: int, segmentation: str = "digest", total: int = 5) -> Job:
    """A claimed job of `total` segments, of which these are kept."""
    started = await store.segments.begin(found(await store.claims.claim_next()), segmentation, total)
    assert started is not None
    for number in numbers:
        assert await store.segments.keep(started[0], number, pcm(number))
    return started[0]


async def kept(store: JobStore, job: Job) -> list[bytes]:
    return [file.read_bytes() for file in await store.segments.files(job)]


async def test_segments_are_kept_in_their_order_and_counted(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        running = await begun(store, 3, 0, 4)
        assert await kept(store, running) == [bytes(pcm(number)) for number in (0, 3, 4)]
        assert await store.retention.audio_bytes() == sum(len(pcm(number)) for number in (0, 3, 4))
        view = found(await store.get("job-1"))
        assert (view.segments, view.segments_done) == (5, 3)
        assert (await store.look(["job-1"]))["job-1"][0] == view


async def test_the_next_run_finds_what_earlier_ones_have_kept(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        await store.claims.release(await begun(store, 0, 2))
        waiting = found(await store.get("job-1"))
        assert (waiting.state, waiting.segments, waiting.segments_done) == (JobState.QUEUED, 5, 2)
        again, numbers = await store.segments.begin(found(await store.claims.claim_next()), "digest", 5)
        assert set(numbers) == {0, 2}
        assert again.segments_done == 2
        assert await store.segments.keep(again, 1, pcm(1))
        assert len(await kept(store, again)) == 3


async def test_a_segment_that_is_kept_twice_counts_once(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        await begun(store, 1, 1)
        assert await store.retention.audio_bytes() == len(pcm(1))
        assert found(await store.get("job-1")).segments_done == 1


async def test_an_empty_segment_is_kept(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        running = await begun(store)
        assert await store.segments.keep(running, 0, MemoryBuffer(b""))
        assert await kept(store, running) == [b""]
        assert found(await store.get("job-1")).segments_done == 1


async def test_segments_of_another_segmentation_are_dropped(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        await store.claims.release(await begun(store, 0, 1))
        running = await begun(store, 2, segmentation="other", total=3)
        assert await kept(store, running) == [bytes(pcm(2))]
        assert await store.retention.audio_bytes() == len(pcm(2))
        view = found(await store.get("job-1"))
        assert (view.segments, view.segments_done) == (3, 1)


async def finish(store: JobStore, job: Job) -> None:
    assert await store.claims.finish(job, RESULT)


async def fail(store: JobStore, job: Job) -> None:
    assert await store.claims.fail(job, ERROR)


async def cancel(store: JobStore, job: Job) -> None:
    assert await store.cancel(job.id)


@pytest.mark.parametrize(("end", "size"), [(finish, len(RESULT.audio)), (fail, 0), (cancel, 0)])
async def test_segments_are_gone_when_their_job_has_ended(
    opened: Opened, end: Callable[[JobStore, Job], Awaitable[None]], size: int
) -> None:
    async with opened() as store:
        await store.add([job(1)])
        running = await begun(store, 0, 1, 2)
        assert len(await kept(store, running)) == 3
        await end(store, running)
        assert await store.retention.audio_bytes() == size
        assert await kept(store, running) == []
        assert not await store.segments.keep(running, 3, pcm(3))
        assert await kept(store, running) == []
        assert await store.segments.begin(running, "digest", 5) is None
        await store.retention.purge(2000.0)
        assert await store.retention.audio_bytes() == 0


async def test_a_done_job_has_all_of_its_segments_done(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        await finish(store, await begun(store, 0, 1, 2, 3, 4))
        view = found(await store.get("job-1"))
        assert (view.state, view.segments, view.segments_done) == (JobState.DONE, 5, 5)


async def test_a_claim_that_was_lost_keeps_nothing(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        first = await begun(store, 0)
        await store.claims.retry_later(first, ERROR, 0.0)
        second = await begun(store, 1)
        assert not await store.segments.keep(first, 2, pcm(2))
        assert found(await store.get("job-1")).segments_done == 2
        assert await store.segments.begin(first, "other", 5) is None
        await finish(store, second)


async def test_a_requeued_job_begins_anew(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        await fail(store, await begun(store, 0, 1))
        requeued = found(await store.requeue("job-1"))
        assert (requeued.segments, requeued.segments_done) == (None, 0)
        _, numbers = await store.segments.begin(found(await store.claims.claim_next()), "digest", 5)
        assert set(numbers) == set()


async def test_attempts_before_the_last_finished_segment_do_not_count(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        for expected in (1, 1, 1, 2, 3):
            claimed = found(await store.claims.claim_next())
            assert claimed.fruitless_attempts == expected
            running, numbers = await store.segments.begin(claimed, "digest", 5)
            if len(numbers) < 2:
                await store.segments.keep(running, len(numbers), pcm(0))
            await store.claims.retry_later(running, ERROR, 0.0)


async def test_kept_segments_fill_their_callers_share(opened: Opened) -> None:
    size = sum(len(pcm(number)) for number in range(3))
    async with opened(limits=JobLimits(audio_bytes=2 * size, share=0.5)) as store:
        await store.add([job(1), job(2)])
        await store.add([job(3, caller="other")])
        running = await begun(store, 0, 1, 2)
        assert found(await store.claims.claim_next()).id == "job-3"
        assert await store.claims.claim_next() is None, "the caller's second job waits for room"
        await cancel(store, running)
        assert found(await store.claims.claim_next()).id == "job-2"


async def test_kept_segments_are_part_of_what_is_reserved(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=2000, share=0.5)) as store:
        await store.add([job(1, expected_size=250), job(2, expected_size=800)])
        running = await begun(store, 0, 1)
        assert await store.retention.audio_bytes() == 250
        assert await store.claims.claim_next() is None, "250 are reserved, and there is no room for 800 beside them"
        assert await store.segments.keep(running, 2, pcm(2))
        assert await store.retention.audio_bytes() == 303, "the segments need more than was reserved"
        await store.claims.release(running)
        assert await store.retention.audio_bytes() == 303, "the segments stay"
        again = await begun(store)
        assert again.id == "job-1", "its own segments leave room for it"
        assert await store.retention.audio_bytes() == 303
        await finish(store, again)
        assert await store.retention.audio_bytes() == len(RESULT.audio)
        assert found(await store.claims.claim_next()).id == "job-2"


async def test_a_segment_for_which_there_is_no_room_is_not_kept(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=1000, share=0.5)) as store:
        await store.add([job(1, expected_size=250), job(2, expected_size=250)])
        first, second = await begun(store, 0, 1), await begun(store, 0, 1)
        with pytest.raises(StoreFullError) as full:
            await store.segments.keep(first, 2, pcm(2))
        assert (full.value.own, full.value.audio) == (True, True)
        assert (full.value.used, full.value.limit, full.value.needed) == (250, 500, 303)
        assert await store.segments.keep(first, 1, pcm(1)), "it is kept already"
        assert len(await kept(store, first)) == 2
        assert await store.retention.audio_bytes() == 500
        await finish(store, second)
        assert await store.segments.keep(first, 2, pcm(2))
        assert await store.retention.audio_bytes() == 303 + len(RESULT.audio)


async def test_a_job_that_is_begun_anew_gives_its_segments_back(opened: Opened) -> None:
    async with opened(limits=JobLimits(audio_bytes=1000, share=0.5)) as store:
        await store.add([job(1, expected_size=250)])
        running = await begun(store, 0, 1)
        anew = running.expecting(400).without_segments()
        assert await store.claims.retry_later(anew, ERROR, 0.0, counts=False)
        assert await store.retention.audio_bytes() == 0
        waiting = found(await store.get("job-1"))
        assert (waiting.segments, waiting.segments_done, waiting.fruitless_attempts) == (None, 0, 0)
        again, numbers = await store.segments.begin(found(await store.claims.claim_next()), "digest", 5)
        assert set(numbers) == set()
        assert await kept(store, again) == []
        assert await store.retention.audio_bytes() == 400


async def test_long_jobs_of_some_callers_are_passed_over(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1, characters=LONG), job(2, characters=LONG), job(3)])
        await store.add([job(4, caller="other", characters=LONG), job(5, caller="other", characters=LONG)])
        assert found(await store.claims.claim_next()).id == "job-1"
        assert found(await store.claims.claim_next(["someone"])).id == "job-4"
        assert found(await store.claims.claim_next(["someone", "other"])).id == "job-3"
        assert await store.claims.claim_next(["someone", "other"]) is None
        assert await store.claims.claim_next(None) is None
        assert found(await store.claims.claim_next(["other"])).id == "job-2"
        assert found(await store.claims.claim_next()).id == "job-5"


async def test_a_large_result_is_stored_in_pieces(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.jobs.redis.results.PIECE_BYTES", 1000)
    audio = bytes(range(256)) * 20
    async with opened(Clock()) as store:
        await store.add([job(1)])
        done = await begun(store, 0)
        assert await store.claims.finish(done, JobResult(MemoryBuffer(audio), 1.0, "digest"))
        file: Any = await store.audio(found(await store.get("job-1")))
        assert file.read_bytes() == audio


async def test_what_is_playable_has_no_gap(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        running = await begun(store, 1, 3)

        async def playable() -> tuple[int, int, int]:
            view = found(await store.get("job-1"))
            assert (await store.look(["job-1"]))["job-1"][0] == view
            return view.segment_bytes, view.playable_segments, view.playable_bytes

        assert await playable() == (101 + 103, 0, 0)
        await store.segments.keep(running, 0, pcm(0))
        assert await playable() == (100 + 101 + 103, 2, 100 + 101)
        await store.segments.keep(running, 2, pcm(2))
        assert await playable() == (100 + 101 + 102 + 103, 4, 100 + 101 + 102 + 103)
        assert await store.segments.read(running, 2) == bytes(pcm(2))
        assert await store.segments.read(running, 4) is None
        other, _ = await store.segments.begin(running, "other", 5)
        assert await playable() == (0, 0, 0)
        assert await store.segments.read(running, 2) is None
        await store.segments.keep(other, 0, MemoryBuffer(b""))
        assert await store.segments.read(other, 0) == b""
        assert await store.segments.read(running, 0) is None, "it is of another segmentation"
        await finish(store, other)
        assert await playable() == (0, 0, 0)
