"""Speaks queued jobs while workers are idle, each until it is done, cannot be done, or has failed too often."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

from balancer.audio.formats import AudioFormat
from balancer.errors import (
    ChorusError,
    InvalidRequestError,
    NotServingError,
    PoisonedError,
    QueueFullError,
    SynthesisError,
)
from balancer.jobs.job import Job, JobError, JobState
from balancer.jobs.store import JobStore, JobStoreError, Result
from balancer.metrics import Metrics
from balancer.requests.bodies import TtsBody
from balancer.requests.speech_request import RequestContext
from balancer.requests.validation import RequestValidator
from balancer.scheduling.priority import Priority
from balancer.speech.service import SpeechService

log = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 0.5
"""Between two looks for what others have handed in, or for what has come due."""
SLOT_POLL_INTERVAL_SECONDS = 0.02
"""Between two looks whether there is room."""
MIN_RETRY_SECONDS = 2.0
"""Before a failed job's second attempt; each further pause is twice as long."""
MAX_RETRY_SECONDS = 300.0
MAX_CRASHES_PER_ATTEMPT = 4
"""So many times the attempts may end with the death of this process, which need not be the job's fault."""
PURGE_INTERVAL_SECONDS = 60.0
"""Between two looks for jobs that are old enough to purge."""


class Slots(Protocol):
    """The workers, as far as jobs care."""

    @property
    def slots(self) -> int:
        """All that there are."""

    @property
    def room_for_batch(self) -> bool:
        """Whether one more would start at once, or none of its kind waits yet."""


class JobExecutor:
    """Takes jobs of the store, as many at once as there is room for."""

    def __init__(
        self,
        store: JobStore,
        speech: SpeechService,
        validator: RequestValidator,
        slots: Slots,
        metrics: Metrics,
        *,
        attempts: int,
        retention: float,
    ) -> None:
        """`retention` is for how many seconds a job is kept after its end."""
        self._store = store
        self._speech = speech
        self._validator = validator
        self._slots = slots
        self._metrics = metrics
        self._attempts = attempts
        self._retention = retention
        self._running: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._wake = asyncio.Event()
        self._failing = False

    def wake(self) -> None:
        """Look at once: there is a new job."""
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """Stop speaking a job that was cancelled."""
        task = self._running.get(job_id)
        if task is not None:
            self._cancelled.add(job_id)
            task.cancel()

    async def run(self) -> None:
        """Run jobs until cancelled; what is then under way is queued again."""
        try:
            async with asyncio.TaskGroup() as beside:
                beside.create_task(self._maintain())
                while True:
                    self._wake.clear()
                    await self._wait(await self._start_next())
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _start_next(self) -> float:
        """Begin the next job, if there is one and room for it; seconds until the next look, if nothing happens."""
        if not self._slots.room_for_batch or len(self._running) > self._slots.slots:
            return SLOT_POLL_INTERVAL_SECONDS
        try:
            job = await self._store.claim()
        except JobStoreError as error:
            self._report_failure(error)
            return POLL_INTERVAL_SECONDS
        self._failing = False
        if job is None:
            return POLL_INTERVAL_SECONDS
        self._running[job.id] = task = asyncio.create_task(self._execute(job))
        task.add_done_callback(lambda _: self._ended(job.id))
        return 0.0

    async def _wait(self, seconds: float) -> None:
        """For so long, or until there may be something to do: a new job, or the end of one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _ended(self, job_id: str) -> None:
        del self._running[job_id]
        self._cancelled.discard(job_id)
        self._wake.set()

    def _report_failure(self, error: JobStoreError) -> None:
        if not self._failing:
            self._failing = True
            log.error("no jobs are run: %s", error)

    async def _execute(self, job: Job) -> None:
        """Speak a claimed job, and tell the store what came of it."""
        if job.attempts > self._attempts * MAX_CRASHES_PER_ATTEMPT:
            await self._fail(job, SynthesisError(f"whoever ran it died, {job.attempts - 1} times"))
            return
        try:
            result = await self._speak(job)
        except asyncio.CancelledError:
            if job.id not in self._cancelled:  # this process ends
                with suppress(JobStoreError):  # then the store sees by itself that we are gone
                    await self._store.release(job)
            raise
        except NotServingError as error:  # no fault of the job
            log.info("job %s waits: %s", job.id, error)
            await self._record(job, "released", lambda: self._release(job))
        except (InvalidRequestError, PoisonedError) as error:
            await self._fail(job, error)
        except ChorusError as error:
            await self._retry_later(job, error)
        except Exception:
            log.exception("job %s met a defect", job.id)
            await self._retry_later(job, ChorusError("internal error; the server's log has the details"))
        else:
            await self._record(job, "done", lambda: self._store.finish(job, result))

    async def _speak(self, job: Job) -> Result:
        request = self._validator.validate(TtsBody.model_validate(job.body))
        request = replace(request, priority=Priority.BATCH, format=AudioFormat(job.format), deadline_ms=None)
        context = RequestContext(job.id, job.caller, asyncio.get_running_loop().time(), waits_indefinitely=True)
        audio = await self._speech.synthesize(request, context)
        log.info(
            "job %s spoken",
            job.id,
            extra={"fields": {"request": job.id, "attempt": job.attempts} | context.log_fields.as_dict()},
        )
        return Result(audio.data, audio.seconds, sha256(audio.data).hexdigest())

    async def _release(self, job: Job) -> bool:
        await self._store.release(job)
        return True

    async def _fail(self, job: Job, error: ChorusError) -> None:
        log.warning("job %s failed after %d attempts: %s", job.id, job.attempts, error)
        reason = JobError(code=error.code, message=error.message)
        await self._record(job, "failed", lambda: self._store.fail(job, reason))

    async def _retry_later(self, job: Job, error: ChorusError) -> None:
        """After a pause, unless it has been tried often enough."""
        if job.attempts >= self._attempts and not isinstance(error, QueueFullError):
            await self._fail(job, error)
            return
        pause = min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2 ** (job.attempts - 1))
        log.info("job %s is tried again in %g s: %s", job.id, pause, error)
        reason = JobError(code=error.code, message=error.message)
        due = time.time() + pause
        await self._record(job, "postponed", lambda: self._store.retry_later(job, reason, due))

    async def _record(self, job: Job, outcome: str, tell: Callable[[], Awaitable[bool]]) -> None:
        """Tell the store, again until it has heard: a job that it took for running would stay so."""
        while True:
            try:
                held = await tell()
            except JobStoreError as error:
                self._report_failure(error)
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
                continue
            self._metrics.record_job_attempt(outcome if held else "superseded")
            return

    async def _maintain(self) -> None:
        """Drop what is old enough, and keep the gauges."""
        forgotten = 0.0
        while True:
            now = time.time()
            try:
                if now - forgotten > PURGE_INTERVAL_SECONDS:
                    forgotten = now
                    while await self._store.purge(now - self._retention):
                        pass
                counts = await self._store.counts()
                self._metrics.set_job_counts({state.value: counts[state] for state in JobState})
            except JobStoreError as error:
                self._report_failure(error)
            await asyncio.sleep(POLL_INTERVAL_SECONDS * 4)
