"""Runs queued jobs while workers are idle, and retries each until it succeeds or its attempts are used up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Protocol, TypeVar

from balancer.audio.buffers import AudioBuffer
from balancer.errors import (
    AudioTooLargeError,
    ChorusError,
    InvalidRequestError,
    MemoryFullError,
    NotServingError,
    PoisonedError,
    QueueFullError,
    SynthesisError,
)
from balancer.jobs.job import Job, JobError, JobState
from balancer.jobs.job_request import request_of
from balancer.jobs.kept_segments import ClaimLostError, KeptSegments
from balancer.jobs.limits import StoreFullError
from balancer.jobs.store import LONG_CHARACTERS, JobResult, JobStore, JobStoreError
from balancer.metrics import Metrics
from balancer.requests.cache_control import CacheUse
from balancer.requests.speech_request import RequestContext
from balancer.requests.validation import RequestValidator
from balancer.runtime.expiry_clock import ExpiryClock
from balancer.runtime.thread_pool import ThreadPool
from balancer.settings.base import MIB
from balancer.settings.jobs import JobSettings
from balancer.speech.service import SpeechService

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_INTERVAL_SECONDS = 0.5
"""Pause between two polls of the store for jobs that other hosts have added or that have come due."""
SLOT_POLL_INTERVAL_SECONDS = 0.02
"""Pause between two checks for a free slot."""
MIN_RETRY_SECONDS = 2.0
"""Pause before the second attempt at a job; each further pause is twice as long."""
MAX_RETRY_SECONDS = 300.0
MAX_CRASHES_PER_ATTEMPT = 4
"""A job may be claimed this many times its attempts, as the crash of a process need not be the job's fault."""
MAX_LONG_JOBS = 16
"""Long jobs that run at once, each of another caller: their segments take turns."""
MAX_STORE_SECONDS = 30.0
"""Time that the audio of a job is held while the store does not take it. The job is queued again then."""
MIN_STORED_PER_SECOND = 2 * 2**20
"""Bytes of audio that a store takes in a second, at least: a large result is waited for longer."""
UNSTORED_RETRY_SECONDS = 60.0
"""Pause before a job runs again whose audio could not be stored."""
GAUGE_INTERVAL_SECONDS = 2.0
"""Pause between two updates of the metrics of stored jobs."""
PURGE_INTERVAL_SECONDS = 60.0
"""Pause between two purges of old jobs."""


class Slots(Protocol):
    """The slots of the workers, as the executor sees them."""

    @property
    def slots(self) -> int:
        """The number of slots of all workers."""

    @property
    def room_for_batch(self) -> bool:
        """Whether one more batch utterance would start at once, or no batch utterance is queued yet."""

    @property
    def draining(self) -> bool:
        """Whether the operator is taking the host out of service: its jobs are left to other hosts, or wait."""


class JobExecutor:
    """Claims jobs and runs them, as many at once as there are slots for."""

    def __init__(
        self,
        store: JobStore,
        speech: SpeechService,
        validator: RequestValidator,
        slots: Slots,
        metrics: Metrics,
        settings: JobSettings,
    ) -> None:
        self._store = store
        self._speech = speech
        self._validator = validator
        self._slots = slots
        self._metrics = metrics
        self._attempts = settings.job_attempts
        self._retention_seconds = settings.retention_seconds
        self._pool = ThreadPool("job-digests", 1)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._long: dict[str, KeptSegments] = {}
        """Running jobs that are long, by id."""
        self._cancelled: set[str] = set()
        self._wake = asyncio.Event()
        self._failing = False
        self._unreadable_reported = 0
        self._finishing = False

    def wake(self) -> None:
        """Poll the store at once, as there is a new job."""
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """Stop running a job that was cancelled."""
        task = self._running.get(job_id)
        if task is not None:
            self._cancelled.add(job_id)
            task.cancel()

    async def finish(self) -> None:
        """Run no further jobs and segments, wait for the running ones, and let another process claim the rest."""
        self._finishing = True
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        with suppress(JobStoreError):
            await self._store.claims.stop()

    async def run(self) -> None:
        """Run jobs until cancelled; the running ones are then queued again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._maintain())
                while True:
                    self._wake.clear()
                    await self._wait(await self._start_next())
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _start_next(self) -> float:
        """Start the next job if one is due and a slot is free; returns the seconds to wait before the next call."""
        if self._stops():
            return POLL_INTERVAL_SECONDS
        speaking = [kept.job.caller_id for kept in self._long.values() if kept.speaking]
        if not self._room(beside=len(speaking)):
            return SLOT_POLL_INTERVAL_SECONDS
        try:
            # A caller's long jobs are spoken one after another: one takes all slots that others leave.
            job = await self._store.claims.claim_next(speaking if len(speaking) < MAX_LONG_JOBS else None)
        except JobStoreError as error:
            self._report_failure(error)
            return POLL_INTERVAL_SECONDS
        self._failing = False
        if job is None:
            return POLL_INTERVAL_SECONDS
        kept = KeptSegments(job, self._store.segments, self._until_answered, self._stops)
        if job.characters > LONG_CHARACTERS:
            self._long[job.id] = kept
        self._running[job.id] = task = asyncio.create_task(self._execute(kept))
        task.add_done_callback(lambda _: self._finished(job.id))
        return 0.0

    def _stops(self) -> bool:
        """Whether no job and no further segment of one is to be begun."""
        return self._finishing or self._slots.draining

    def _room(self, *, beside: int) -> bool:
        """Whether one more job may be claimed while so many long ones are spoken.

        Segments of these are queued at all times, and callers take turns at the slots.
        """
        others = len(self._running) - beside
        if beside:
            return others < self._slots.slots
        return self._slots.room_for_batch and others <= self._slots.slots

    async def _wait(self, seconds: float) -> None:
        """Wait for so long, or until a job is added or ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _finished(self, job_id: str) -> None:
        del self._running[job_id]
        self._long.pop(job_id, None)
        self._cancelled.discard(job_id)
        self._wake.set()

    def _report_failure(self, error: JobStoreError) -> None:
        if not self._failing:
            self._failing = True
            log.error("jobs cannot be run: %s", error)

    async def _execute(self, kept: KeptSegments) -> None:
        """Run a claimed job, and record its outcome in the store."""
        job = kept.job
        if job.fruitless_attempts > self._attempts * MAX_CRASHES_PER_ATTEMPT:
            await self._fail(job, SynthesisError(f"the process that ran this job died {job.attempts - 1} times"))
        else:
            await self._attempt(kept)

    async def _attempt(self, kept: KeptSegments) -> None:
        job = kept.job
        try:
            result = await self._synthesize(kept)
        except asyncio.CancelledError:
            if job.id not in self._cancelled:  # the executor stops
                with suppress(JobStoreError):  # the store queues the job again once this process has ended
                    await self._store.claims.release(kept.job)
            raise
        except ClaimLostError:
            self._metrics.record_job_attempt("superseded")
        except StoreFullError as full:
            await self._wait_for_room(kept.job, full)
        except NotServingError as error:  # not the fault of the job
            log.info("job %s released: %s", job.id, error)
            await self._record("released", lambda: self._release(kept.job))
        except (InvalidRequestError, PoisonedError) as error:
            await self._fail(kept.job, error)
        except ChorusError as error:
            await self._retry_later(kept.job, error)
        except Exception:
            log.exception("job %s: internal error", job.id)
            await self._retry_later(kept.job, ChorusError("internal error; the server's log has the details"))
        else:
            await self._finish(kept.job, result)

    async def _synthesize(self, kept: KeptSegments) -> JobResult:
        job = kept.job
        request = await request_of(job, self._validator)
        # A long text would take the place of all else in the cache.
        cache = CacheUse(reads=False, writes=False) if job.characters > LONG_CHARACTERS else CacheUse()
        now = asyncio.get_running_loop().time()
        context = RequestContext(job.id, job.caller, job.caller_id, now, cache=cache, waits_indefinitely=True)
        audio = await self._speech.synthesize(request, context, kept)
        fields = {"request": job.id, "attempt": job.attempts} | context.log_fields.as_dict()
        log.info("job %s synthesized", job.id, extra={"fields": fields})
        return JobResult(audio.data, audio.seconds, await self._pool.run(lambda: _digest_of(audio.data)))

    async def _finish(self, job: Job, result: JobResult) -> None:
        """Store the audio. A job whose audio the store does not take for long, or has no room for, is queued again."""
        try:
            async with asyncio.timeout(MAX_STORE_SECONDS + len(result.audio) / MIN_STORED_PER_SECOND):
                await self._record("done", lambda: self._store.claims.finish(job, result))
        except TimeoutError:
            log.error("the audio of job %s cannot be stored; the job runs again", job.id)
            reason = JobError(code="jobs_unavailable", message="the audio could not be stored; the job runs again")
            due = time.time() + UNSTORED_RETRY_SECONDS
            # Not the fault of the job, which must not fail of it.
            await self._record("postponed", lambda: self._store.claims.retry_later(job, reason, due, counts=False))
        except StoreFullError as full:
            await self._wait_for_room(job, full)

    async def _wait_for_room(self, job: Job, full: StoreFullError) -> None:
        """Queue a job again that needs more room than was reserved for it. It is claimed once there is enough.

        It is begun anew then: two jobs that keep their segments while they wait could wait for each other.
        """
        if full.needed > full.limit:
            found, limit = f"{full.needed / MIB:.1f} MiB", f"{full.limit / MIB:.1f} MiB"
            await self._fail(job, AudioTooLargeError(f"its audio has {found}, and the limit of a caller is {limit}"))
            return
        log.info("job %s waits for room for %.1f MiB of audio, and runs again then", job.id, full.needed / MIB)
        reason = JobError(code="jobs_full", message="there was no room for its audio; the job runs again once there is")
        # Each segment that is left takes as much as those spoken so far, among them the one that has no room.
        expected = full.needed * max(job.segments or 0, job.segments_done + 1) // (job.segments_done + 1)
        anew, due = job.expecting(expected).without_segments(), time.time()
        await self._record("postponed", lambda: self._store.claims.retry_later(anew, reason, due, counts=False))

    async def _release(self, job: Job) -> bool:
        await self._store.claims.release(job)
        return True

    async def _fail(self, job: Job, error: ChorusError) -> None:
        log.warning("job %s failed after %d attempts: %s", job.id, job.attempts, error)
        reason = JobError(code=error.code, message=error.message)
        await self._record("failed", lambda: self._store.claims.fail(job, reason))

    async def _retry_later(self, job: Job, error: ChorusError) -> None:
        """Retry after a pause, unless the attempts are used up; a full queue or memory does not use them up."""
        attempts = job.fruitless_attempts
        if attempts >= self._attempts and not isinstance(error, (QueueFullError, MemoryFullError)):
            await self._fail(job, error)
            return
        pause = min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2 ** (attempts - 1))
        log.info("job %s is retried in %g s: %s", job.id, pause, error)
        reason = JobError(code=error.code, message=error.message)
        due = time.time() + pause
        await self._record("postponed", lambda: self._store.claims.retry_later(job, reason, due))

    async def _record(self, outcome: str, transition: Callable[[], Awaitable[bool]]) -> None:
        """Apply a transition in the store. Retried until the store answers, or the job would stay running there."""
        claim_held = await self._until_answered(transition)
        self._metrics.record_job_attempt(outcome if claim_held else "superseded")

    async def _until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call of the store, which is repeated until the store answers."""
        while True:
            try:
                return await call()
            except JobStoreError as error:
                self._report_failure(error)
                await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _maintain(self) -> None:
        """Purge old jobs, and update the metrics of stored jobs."""
        expiry_clock = ExpiryClock()
        now = asyncio.get_running_loop().time
        purge_due = now()
        while True:
            try:
                if now() >= purge_due:
                    purge_due = now() + PURGE_INTERVAL_SECONDS
                    while await self._store.retention.purge(expiry_clock() - self._retention_seconds):
                        pass
                if evicted := await self._store.retention.evict():
                    log.info("deleted the %d oldest finished jobs to make room for audio", evicted)
                counts = await self._store.counts()
                self._metrics.set_job_counts({state.value: counts[state] for state in JobState})
                self._metrics.jobs_audio_bytes.set(await self._store.retention.audio_bytes())
                self._metrics.jobs_unreadable.inc(self._store.unreadable - self._unreadable_reported)
                self._unreadable_reported = self._store.unreadable
            except JobStoreError as error:
                self._report_failure(error)
            await asyncio.sleep(GAUGE_INTERVAL_SECONDS)


def _digest_of(audio: AudioBuffer) -> str:
    digest = sha256()
    for piece in audio.pieces():
        digest.update(piece)
    return digest.hexdigest()
