"""The job executor over a real store, with a stub of the speech service that follows its text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.formats import AudioFormat
from balancer.errors import NotServingError, PoisonedError, QueueFullError, SynthesisError
from balancer.jobs import executor as module
from balancer.jobs.executor import MAX_CRASHES_PER_ATTEMPT, JobExecutor
from balancer.jobs.job import Job, JobState
from balancer.jobs.limits import JobLimits
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import LONG_CHARACTERS
from balancer.metrics import Metrics
from balancer.requests.speech_request import RequestContext, SpeechRequest
from balancer.requests.validation import RequestValidator
from balancer.settings.jobs import JobSettings
from balancer.speech.results import Audio
from balancer.speech.segment_keeper import SegmentKeeper
from balancer.speech.service import SpeechService
from tests.support.harness import ROOT, TIMEOUT
from voices.registry import Registry
from worker.cards import CARDS

ATTEMPTS = 3
PCM = MemoryBuffer(b"pcm")


class Speech:
    """Stub of the speech service: a text such as `nobody 2` raises that error for the first two attempts.

    The text `segments 9` has nine segments, of which each attempt speaks one and fails; `hold` speaks one of two, and
    waits until it is to stop.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, RequestContext]] = []
        self.seeds: set[int] = set()

    async def synthesize(self, request: SpeechRequest, context: RequestContext, keeper: SegmentKeeper) -> Audio:
        self.requests.append((request.text, context))
        self.seeds.add(request.seed)
        name, _, times = request.text.partition(" ")
        if name == "segments":
            kept = await keeper.begin("digest", int(times))
            await keeper.keep(len(kept), PCM)
            if len(kept) + 1 < int(times):
                raise SynthesisError("one segment failed")
        if name == "growing":
            kept = await keeper.begin("digest", int(times))
            for number in range(int(times)):
                await keeper.keep(number, PCM)
        if name == "hold":
            await keeper.begin("digest", 2)
            await keeper.keep(0, PCM)
            while not keeper.stops:
                await asyncio.sleep(0.005)
            raise NotServingError("it stops")
        failures = {"full": QueueFullError, "poison": PoisonedError, "nobody": NotServingError, "defect": KeyError}
        if name in failures and self.attempts(request.text) <= int(times):
            raise failures[name]("as the text says")
        if name == "long":
            await asyncio.Event().wait()
        return Audio(MemoryBuffer(b"audio"), AudioFormat.WAV, 24_000, 1.0)

    def attempts(self, text: str) -> int:
        return [requested for requested, _ in self.requests].count(text)


class Slots:
    slots = 2
    room_for_batch = True
    draining = False


@pytest.fixture
def limits() -> JobLimits:
    return JobLimits()


@pytest.fixture
async def store(tmp_path: Path, limits: JobLimits) -> AsyncIterator[SqliteJobStore]:
    store = SqliteJobStore(tmp_path, limits=limits)
    yield store
    await store.aclose()


@pytest.fixture
def speech() -> Speech:
    return Speech()


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
async def running(
    store: SqliteJobStore, speech: Speech, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[JobExecutor, asyncio.Task[None]]]:
    monkeypatch.setattr(module, "MIN_RETRY_SECONDS", 0.01)
    validator = RequestValidator(CARDS["hibari"], Registry.load(ROOT / "voices"), 1000, normalize=False)
    executor = JobExecutor(
        store, cast(SpeechService, speech), validator, slots, Metrics("hibari"), JobSettings(job_attempts=ATTEMPTS)
    )
    task = asyncio.create_task(executor.run())
    yield executor, task
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def ended(store: SqliteJobStore, text: str, **changes: Any) -> Job:
    """Add a job with this text, and return it when it has ended."""
    fields: dict[str, Any] = {
        "caller": "shop",
        "body": {"text": text},
        "characters": 1,
        "created": 0.0,
        "format": "wav",
    }
    (job,) = await store.add([Job(id=text.replace(" ", "-"), **(fields | changes))])
    return await end_of(store, job)


async def end_of(store: SqliteJobStore, job: Job) -> Job:
    """A job as it is when it has ended."""
    async with asyncio.timeout(TIMEOUT):
        while (now := await store.get(job.id)) is not None and not now.state.final:
            await asyncio.sleep(0.005)
    assert now is not None
    return now


Running = tuple[JobExecutor, asyncio.Task[None]]


async def test_a_job_runs_at_batch_priority_without_a_time_limit(
    store: SqliteJobStore, speech: Speech, running: Running
) -> None:
    assert (await ended(store, "Hello.")).state is JobState.DONE
    ((_, context),) = speech.requests
    assert (context.caller, context.waits_indefinitely, context.deadline_ms) == ("shop", True, None)


@pytest.mark.parametrize(
    ("text", "state", "attempts"),
    [
        ("defect 2", JobState.DONE, 3),
        ("defect 9", JobState.FAILED, 3),
        ("full 6", JobState.DONE, 7),
        ("nobody 5", JobState.DONE, 6),
        ("poison 1", JobState.FAILED, 1),
    ],
)
async def test_each_error_has_its_own_number_of_attempts(
    store: SqliteJobStore, speech: Speech, running: Running, text: str, state: JobState, attempts: int
) -> None:
    job = await ended(store, text)
    assert (job.state, speech.attempts(text)) == (state, attempts)
    assert (job.error is None) == (state is JobState.DONE)


async def test_a_job_whose_process_dies_again_and_again_fails(
    store: SqliteJobStore, speech: Speech, running: Running
) -> None:
    job = await ended(store, "Hello.", attempts=ATTEMPTS * MAX_CRASHES_PER_ATTEMPT)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "the process that ran this job died" in job.error.message
    assert speech.requests == []


async def test_a_running_job_is_queued_again_when_the_executor_stops(
    store: SqliteJobStore, speech: Speech, running: Running
) -> None:
    _, task = running
    added = asyncio.create_task(ended(store, "long"))
    while not speech.requests:
        await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    job = await store.get("long")
    assert job is not None
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    added.cancel()
    with suppress(asyncio.CancelledError):
        await added


async def test_a_job_fails_if_its_voice_no_longer_exists(store: SqliteJobStore, running: Running) -> None:
    job = await ended(store, "Hello.", body={"text": "Hello.", "character": "gone"})
    assert job.error is not None
    assert job.error.code == "voice_not_found"


@pytest.mark.parametrize("limits", [JobLimits(audio_bytes=16, share=0.5)])
async def test_a_job_whose_audio_has_no_room_waits_for_it(
    store: SqliteJobStore, speech: Speech, running: Running
) -> None:
    first = await ended(store, "First.")
    waiting = asyncio.create_task(ended(store, "Second."))
    async with asyncio.timeout(TIMEOUT):
        while (job := await store.get("Second.")) is None or job.error is None:
            await asyncio.sleep(0.005)
    assert (job.state, job.attempts, job.expected_size, job.error.code) == (JobState.QUEUED, 0, 5, "jobs_full")
    assert speech.attempts("Second.") == 1
    await store.delete(first.id)
    assert (await waiting).state is JobState.DONE
    assert speech.attempts("Second.") == 2


@pytest.mark.parametrize("limits", [JobLimits(audio_bytes=8, share=0.5)])
async def test_a_job_whose_audio_exceeds_the_callers_share_fails(
    store: SqliteJobStore, speech: Speech, running: Running
) -> None:
    job = await ended(store, "Hello.")
    assert job.error is not None
    assert (job.state, job.error.code, speech.attempts("Hello.")) == (JobState.FAILED, "audio_too_large", 1)


@pytest.mark.parametrize("limits", [JobLimits(audio_bytes=24, share=0.5)])
async def test_a_job_whose_segments_have_no_room_is_begun_anew_when_there_is(
    store: SqliteJobStore, speech: Speech, running: Running
) -> None:
    first = await ended(store, "First.")
    waiting = asyncio.create_task(ended(store, "growing 4"))
    async with asyncio.timeout(TIMEOUT):
        while (job := await store.get("growing-4")) is None or job.error is None:
            await asyncio.sleep(0.005)
    assert (job.state, job.attempts, job.expected_size, job.error.code) == (JobState.QUEUED, 0, 12, "jobs_full")
    assert (job.segments, job.segments_done, await store.retention.audio_bytes()) == (None, 0, 5)
    await store.delete(first.id)
    assert (await waiting).state is JobState.DONE
    assert speech.attempts("growing 4") == 2


async def test_a_job_whose_audio_cannot_be_stored_is_queued_again(
    store: SqliteJobStore, speech: Speech, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STORE_SECONDS", 0.2)
    monkeypatch.setattr(module, "UNSTORED_RETRY_SECONDS", 0.05)
    results = tmp_path / "results"
    results.write_text("no folder")
    added = asyncio.create_task(ended(store, "Hello."))
    async with asyncio.timeout(TIMEOUT):
        while speech.attempts("Hello.") < 2:
            await asyncio.sleep(0.005)
    results.unlink()
    job = await added
    assert (job.state, job.attempts) == (JobState.DONE, 1)


async def test_a_job_that_makes_progress_outlives_more_failures_than_attempts(
    store: SqliteJobStore, speech: Speech, running: Running
) -> None:
    job = await ended(store, "segments 7")
    assert (job.state, job.attempts, job.segments_done) == (JobState.DONE, 7, 7)
    assert len(speech.seeds) == 1, "a random seed is the same in every attempt"


async def until_held(store: SqliteJobStore, *jobs: Job) -> None:
    """Wait until each of these jobs has kept a segment."""
    async with asyncio.timeout(TIMEOUT):
        for job in jobs:
            while (now := await store.get(job.id)) is None or not now.segments_done:
                await asyncio.sleep(0.005)


def held(name: str, **changes: Any) -> Job:
    fields: dict[str, Any] = {"caller": "shop", "body": {"text": "hold"}, "created": 0.0, "format": "wav"}
    return Job(id=name, **(fields | {"characters": LONG_CHARACTERS + 1} | changes))


async def test_a_running_job_stops_between_two_segments_when_another_process_takes_over(
    store: SqliteJobStore, running: Running
) -> None:
    executor, _ = running
    (job,) = await store.add([held("one")])
    await until_held(store, job)
    await executor.finish()
    now = await store.get("one")
    assert now is not None
    assert (now.state, now.attempts, now.segments_done) == (JobState.QUEUED, 0, 1)


async def test_a_drained_host_stops_between_two_segments_and_begins_no_job_until_it_is_resumed(
    store: SqliteJobStore, running: Running, speech: Speech, slots: Slots
) -> None:
    executor, _ = running
    (job,) = await store.add([held("one")])
    await until_held(store, job)
    slots.draining = True
    await store.add([held("two", body={"text": "Short."}, caller="another")])
    executor.wake()
    async with asyncio.timeout(TIMEOUT):
        while (now := await store.get("one")) is None or now.state is not JobState.QUEUED:
            await asyncio.sleep(0.005)
    assert (now.attempts, now.segments_done) == (0, 1)
    assert speech.attempts("Short.") == 0
    slots.draining = False
    executor.wake()
    assert (await end_of(store, held("two"))).state is JobState.DONE


async def test_a_callers_long_jobs_run_one_after_another_and_leave_room_for_others(
    store: SqliteJobStore, running: Running
) -> None:
    executor, _ = running
    await store.add([held("one"), held("two")])
    await store.add([held("other", caller="another")])
    await until_held(store, held("one"), held("other"))
    assert (await ended(store, "Short.")).state is JobState.DONE, "of the same caller"
    assert (await ended(store, "Brief.", caller="third")).state is JobState.DONE
    waiting = await store.get("two")
    assert waiting is not None
    assert waiting.state is JobState.QUEUED
    await store.cancel("one")
    executor.cancel("one")
    await until_held(store, held("two"))
