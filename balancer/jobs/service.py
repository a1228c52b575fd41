"""Accepts jobs, reports their status and cancels them. The routes of the job queue call it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Protocol, TypeVar

from balancer.audio.encoder import expected_bytes, is_pcm_copy
from balancer.audio.formats import AudioFormat
from balancer.audio.pcm import duration
from balancer.errors import (
    AudioTooLargeError,
    IdempotencyConflictError,
    InvalidRequestError,
    JobNotDoneError,
    JobNotFoundError,
    JobsFullError,
    JobShareFullError,
)
from balancer.jobs.job import Job, JobState, new_ids
from balancer.jobs.limits import JobLimits, StoreFullError
from balancer.jobs.outage_log import OutageLog
from balancer.jobs.public_network import ReceiverRules, check_url
from balancer.jobs.store import (
    MAX_DUE_SECONDS,
    NOTHING_AHEAD,
    IdempotencyError,
    JobStore,
    QueuedAhead,
)
from balancer.requests.bodies import QueueBody
from balancer.requests.speech_request import SpeechRequest
from balancer.runtime.thread_pool import Run, run_at_once, with_rests
from balancer.settings.access import IDENTITY_PREFIX
from balancer.settings.base import MIB
from balancer.settings.jobs import JobSettings

A = TypeVar("A")
B = TypeVar("B")

JOBS_AT_A_TIME = 500
"""Jobs of a batch that are made before another batch has its turn."""
MAX_UNFINISHED_PROGRESS = 0.99
"""The largest progress that is reported for a job that is not done."""
FULL_RETRY_SECONDS = 60.0
"""Pause after which a client may try again to queue jobs where finished ones fill the store."""


class ThroughputSource(Protocol):
    """The throughput of this host's workers."""

    @property
    def characters_per_second(self) -> float:
        """Characters that all workers together synthesize in one second."""

    def audio_seconds(self, characters: int) -> float:
        """Expected audio of a text with that many characters, in seconds."""


class JobCanceller(Protocol):
    """The executor as the service sees it: it starts new jobs and stops cancelled ones."""

    def wake(self) -> None:
        """Poll the store at once, as there are new jobs."""

    def cancel(self, job_id: str) -> None:
        """Stop running a job, if it runs on this host."""


@dataclass(frozen=True)
class JobOwner:
    """The sender of a request about jobs, who owns the jobs that it queues."""

    caller: str
    """The API key's name, or the client's address."""
    identity: str | None
    """The API key's identity; None if the request has no key."""
    base_url: str = ""
    """The address of this server for the client, without a slash at its end."""
    concurrency: int | None = None
    """The most jobs of this owner that may run at once; None: as many as there are slots."""
    key_created: float = 0.0
    """Unix time at which the API key was made; 0: unknown."""

    def may_see(self, job: Job) -> bool:
        """Whether a job is this owner's, or nobody's. Jobs of earlier versions know their key by its name only."""
        if job.owner is None or job.owner == self.identity:
            return True
        named_only = not job.owner.startswith(IDENTITY_PREFIX)
        return named_only and self.identity is not None and job.owner == self.caller and self.key_created <= job.created


@dataclass(frozen=True)
class JobStatusView:
    """A job's current state and its place in the queue."""

    job: Job
    position: int
    """Place in the queue, 1 is next; 0: not queued."""
    eta_seconds: float
    """Estimated time until the job is done."""
    seconds_done: float = 0.0
    """About the audio of the finished segments, or of the job that is done, in seconds."""
    seconds_playable: float = 0.0
    """The part of it from the beginning on in which nothing is missing: it can be listened to."""

    @property
    def progress(self) -> float:
        """Share of the work that is done, from 0 to 1; 1 only once the job is done.

        It is counted in segments, or estimated for a job of one.
        """
        if self.job.segments and not self.job.state.final:
            return min(MAX_UNFINISHED_PROGRESS, round(self.job.segments_done / self.job.segments, 4))
        match self.job.state:
            case JobState.RUNNING:
                elapsed = _elapsed(self.job)
                return round(min(MAX_UNFINISHED_PROGRESS, elapsed / max(elapsed + self.eta_seconds, 0.001)), 2)
            case JobState.DONE:
                return 1.0
        return 0.0


class JobService:
    """Accepts jobs while the store has room, reports their status, cancels and deletes them.

    `sample_rate` is the engine's, in Hz.
    """

    def __init__(
        self,
        store: JobStore,
        throughput: ThroughputSource,
        executor: JobCanceller,
        settings: JobSettings,
        *,
        sample_rate: int,
        max_encoded_bytes: int,
        outage: OutageLog,
    ) -> None:
        """`sample_rate` is the engine's; one caller may have `max_encoded_bytes` of files under way."""
        self._store = store
        self._throughput = throughput
        self._executor = executor
        self._sample_rate = sample_rate
        self._max_kept_bytes = JobLimits.of(settings).caller_audio_bytes
        self._max_bytes = min(self._max_kept_bytes, store.max_result_bytes)
        self._max_encoded_bytes = max_encoded_bytes
        self._webhooks_enabled = settings.webhook_secret is not None
        self._receivers = ReceiverRules.of(settings)
        self._outage = outage

    def check(self, body: QueueBody, request: SpeechRequest) -> None:
        """Raise InvalidRequestError for a webhook that could not be delivered, or a result that would be too large.

        `request` is the valid request of the body.
        """
        self._check_size(request)
        if body.webhook is None:
            return
        if not self._webhooks_enabled:
            raise InvalidRequestError(
                "this server sends no webhooks (CHORUS_WEBHOOK_SECRET is not set); poll statusUrl instead",
                param="webhook",
            )
        try:
            check_url(body.webhook, self._receivers)
        except ValueError as error:
            raise InvalidRequestError(f"webhook {error}", param="webhook") from error

    def _check_size(self, request: SpeechRequest) -> None:
        """Raise AudioTooLargeError if a job's audio would take more room than one caller may have."""
        seconds = self._throughput.audio_seconds(len(request.text))
        pcm, file = self._sizes(seconds, request.format, request.speed)
        limit = self._max_bytes
        if not is_pcm_copy(request.format, request.speed):
            limit = min(limit, self._max_encoded_bytes)
        length, field = f"about {seconds / 3600:.1f} h of audio", request.text_field
        if pcm > self._max_kept_bytes:
            raise AudioTooLargeError(
                f"{field} makes {length}, which takes {_mib(pcm)} while it is spoken; "
                f"a job may take {_mib(self._max_kept_bytes)}: send it in parts",
                param=field,
            )
        if file > limit:
            raise AudioTooLargeError(
                f"{field} makes {length}, {_mib(file)} as {request.format.value}; a job's file may have {_mib(limit)}: "
                "send it in parts, or ask for opus or mp3",
                param=field,
            )

    async def accept(self, bodies: Sequence[QueueBody], owner: JobOwner, run: Run = run_at_once) -> list[JobStatusView]:
        """Accept all of these jobs or none; accepted jobs are not lost. The bodies must be validated already.

        `run` does what takes long for many jobs, in parts.

        Raises JobShareFullError, JobsFullError, IdempotencyConflictError, JobsUnavailableError.
        """

        def make(part: Sequence[QueueBody]) -> list[Job]:
            ids = new_ids(len(part))
            return [
                _job(job_id, body, owner).expecting(self._expected_size(body))
                for job_id, body in with_rests(zip(ids, part, strict=True))
            ]

        def view(part: Sequence[tuple[Job, QueuedAhead]]) -> list[JobStatusView]:
            return [self._view(job, before) for job, before in with_rests(part)]

        jobs = await _in_parts(make, bodies, run)
        try:
            with self._outage.translated():
                added = await self._store.add(jobs)
                self._executor.wake()
                ahead = await self._store.places.ahead_all(added)
        except StoreFullError as error:
            raise _full(error, self._seconds(sum(job.characters for job in jobs))) from error
        except IdempotencyError as error:
            raise IdempotencyConflictError(
                "this idempotencyKey was used for a different request; each request needs its own",
                param="idempotencyKey",
            ) from error
        return await _in_parts(view, list(zip(added, ahead, strict=True)), run)

    async def status(self, job_id: str, owner: JobOwner) -> JobStatusView:
        """The current status of a job. Raises JobNotFoundError, JobsUnavailableError."""
        with self._outage.translated():
            job = _visible(await self._store.get(job_id), owner)
            return self._view(job, await self._ahead(job))

    async def look(self, job_ids: Collection[str]) -> dict[str, JobStatusView]:
        """The current status of many jobs, whoever may see them. Raises JobsUnavailableError."""
        with self._outage.translated():
            return {job_id: self._view(*found) for job_id, found in (await self._store.look(job_ids)).items()}

    def check_visible(self, job: Job, owner: JobOwner) -> None:
        """Raise JobNotFoundError if this owner may not see the job."""
        _visible(job, owner)

    async def cancel(self, job_id: str, owner: JobOwner) -> JobStatusView:
        """Cancel a job that has not ended; delete one that is done or has failed, with its audio.

        Returns its last status. Raises JobNotFoundError, JobsUnavailableError.
        """
        with self._outage.translated():
            _visible(await self._store.get(job_id), owner)
            job = _visible(await self._store.cancel(job_id), owner)
            if job.state is not JobState.CANCELLED:
                job = _visible(await self._store.delete(job_id), owner)
        self._executor.cancel(job_id)
        return self._view(job, NOTHING_AHEAD)

    async def audio(self, job_id: str, owner: JobOwner) -> tuple[Job, Path]:
        """A job that is done, and its audio file. Raises JobNotFoundError, JobNotDoneError, JobsUnavailableError."""
        with self._outage.translated():
            job = _visible(await self._store.get(job_id), owner)
            if job.state is not JobState.DONE:
                raise JobNotDoneError(f"the job is {job.state.value}; poll /status/{job_id} until it is ready")
            file = await self._store.audio(job)
        if file is None:
            raise JobNotFoundError(f"the audio of job {job_id} no longer exists")
        return job, file

    async def _ahead(self, job: Job) -> QueuedAhead:
        return await self._store.places.ahead(job) if job.state is JobState.QUEUED else NOTHING_AHEAD

    def _view(self, job: Job, ahead: QueuedAhead) -> JobStatusView:
        position = ahead.jobs + 1 if job.state is JobState.QUEUED else 0
        if job.state is JobState.DONE:
            done = playable = job.seconds or 0.0
        else:
            speed = job.body.get("speed") or 1.0
            done, playable = (
                duration(size, self._sample_rate) / speed for size in (job.segment_bytes, job.playable_bytes)
            )
        return JobStatusView(job, position, self._eta_seconds(job, ahead), done, playable)

    def _eta_seconds(self, job: Job, ahead: QueuedAhead) -> float:
        match job.state:
            case JobState.QUEUED:
                wait = min(MAX_DUE_SECONDS, max(0.0, job.due - time.time()))
                return wait + self._seconds(ahead.characters + _remaining(job))
            case JobState.RUNNING if job.segments:
                return max(0.1, self._seconds(_remaining(job)))
            case JobState.RUNNING:
                return max(0.1, self._seconds(job.characters) - _elapsed(job))
        return 0.0

    def _sizes(self, seconds: float, audio_format: AudioFormat, speed: float) -> tuple[float, float]:
        """Expected bytes of a job's segments, and of its file."""
        pcm = expected_bytes(seconds, self._sample_rate, AudioFormat.PCM, 1.0)
        return pcm, expected_bytes(seconds, self._sample_rate, audio_format, speed)

    def _expected_size(self, body: QueueBody) -> int:
        """Bytes that a job is expected to take up: those of its segments until it is done, or of its file then."""
        seconds = self._throughput.audio_seconds(len(body.spoken_text))
        return ceil(max(self._sizes(seconds, body.audio_format, body.speed)))

    def _seconds(self, characters: int) -> float:
        return characters / self._throughput.characters_per_second


def _mib(size: float) -> str:
    return f"{size / MIB:.0f} MiB"


def _full(error: StoreFullError, seconds: float) -> JobsFullError | JobShareFullError:
    """The error for clients while there is no room. `seconds` is the time that their jobs would take."""
    whose = "your jobs take" if error.own else "jobs take"
    if error.audio:
        used, limit = f"{error.used / MIB:.0f} MiB of audio", f"{error.limit / MIB:.0f} MiB"
        advice = "delete some with DELETE /queue/{id}, or try again when they have expired"
        needed = f"{_mib(error.needed)} more" if error.needed > MIB else "more"
        message = f"{whose} {used}, {needed} would be needed, and the limit is {limit}; {advice}"
        retry_after = FULL_RETRY_SECONDS
    else:
        whose = "of your jobs are queued" if error.own else "jobs are queued"
        message, retry_after = f"{error.used} {whose}, and the limit is {error.limit}; try again later", seconds
    return (JobShareFullError if error.own else JobsFullError)(message, retry_after=retry_after)


async def _in_parts(work: Callable[[Sequence[A]], list[B]], items: Sequence[A], run: Run) -> list[B]:
    """The results of `work` for parts of the items, joined."""
    made: list[B] = []
    for first in range(0, len(items), JOBS_AT_A_TIME):
        made += await run(partial(work, items[first : first + JOBS_AT_A_TIME]))
    return made


def _remaining(job: Job) -> int:
    """About the characters that are still to be spoken."""
    return job.characters if not job.segments else job.characters * (job.segments - job.segments_done) // job.segments


def _elapsed(job: Job) -> float:
    """Seconds since the job was claimed; 0 where the clock was set back meanwhile."""
    now = time.time()
    return max(0.0, now - (job.started or now))


def _job(job_id: str, body: QueueBody, owner: JobOwner) -> Job:
    request = body.request
    return Job(
        id=job_id,
        caller=owner.caller,
        owner=owner.identity,
        concurrency=owner.concurrency,
        user_id=body.user_id,
        body=request,
        base_url=owner.base_url,
        characters=len(body.spoken_text),
        created=time.time(),
        idempotency_key=body.idempotency_key,
        request_digest=hashlib.sha256(json.dumps([request, body.webhook], sort_keys=True).encode()).hexdigest(),
        format=body.audio_format.value,
        webhook=body.webhook,
    )


def _visible(job: Job | None, owner: JobOwner) -> Job:
    """The job, if this owner may see it: a job of an API key is hidden from other keys. Raises JobNotFoundError."""
    if job is None or not owner.may_see(job):
        raise JobNotFoundError(
            "there is no such job; POST /queue returns the id of a job, and ended jobs are deleted after some days"
        )
    return job
