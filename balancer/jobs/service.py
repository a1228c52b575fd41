"""Where jobs are handed in and asked for: what the routes of the queue call."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from balancer.audio.formats import AudioFormat
from balancer.errors import (
    IdempotencyConflictError,
    InvalidRequestError,
    JobNotDoneError,
    JobNotFoundError,
    JobsFullError,
    JobsUnavailableError,
)
from balancer.jobs.job import Job, JobState, new_id
from balancer.jobs.public_network import check_url
from balancer.jobs.store import IdempotencyError, JobStore, JobStoreError, QueuedAhead
from balancer.requests.bodies import QueueBody

MAX_UNFINISHED_PROGRESS = 0.99
"""Most progress of a job that is not done."""


class ThroughputSource(Protocol):
    """How fast the workers here speak."""

    @property
    def characters_per_second(self) -> float:
        """Of all of them together."""


class JobCanceller(Protocol):
    """Whoever runs jobs here."""

    def wake(self) -> None:
        """There is something new."""

    def cancel(self, job_id: str) -> None:
        """That job was cancelled."""


@dataclass(frozen=True)
class Client:
    """Who hands in or asks."""

    caller: str
    """The key's name, or the address."""
    owner: str | None
    """The key's name, where there is one."""
    base_url: str = ""


@dataclass(frozen=True)
class JobStatusView:
    """A job as it is now, and what is queued before it."""

    job: Job
    position: int
    """1 is next; 0: not queued."""
    eta_seconds: float
    """Until it is done, as far as is known."""

    def report(self) -> dict[str, Any]:
        """As clients see it."""
        return report(self.job) | {
            "position": self.position,
            "etaSeconds": round(self.eta_seconds, 2),
            "progress": self._progress(),
        }

    def _progress(self) -> float:
        match self.job.state:
            case JobState.RUNNING:
                elapsed = time.time() - (self.job.started or time.time())
                return round(min(MAX_UNFINISHED_PROGRESS, elapsed / max(elapsed + self.eta_seconds, 0.001)), 2)
            case JobState.DONE:
                return 1.0
        return 0.0


class JobService:
    """Takes jobs in, `most` queued at once, and tells what became of them."""

    def __init__(
        self,
        store: JobStore,
        throughput: ThroughputSource,
        executor: JobCanceller,
        *,
        max_queued: int,
        webhooks_enabled: bool = False,
        allow_private: bool = False,
    ) -> None:
        """`allow_private` lets webhooks be at addresses of private networks."""
        self._store = store
        self._throughput = throughput
        self._executor = executor
        self._max_queued = max_queued
        self._webhooks_enabled = webhooks_enabled
        self._allow_private = allow_private

    def check(self, body: QueueBody) -> None:
        """Refuse a webhook that could not be told. Raises InvalidRequestError."""
        if body.webhook is None:
            return
        if not self._webhooks_enabled:
            raise InvalidRequestError(
                "this server tells no webhooks (its operator has not set CHORUS_WEBHOOK_SECRET); ask statusUrl instead",
                param="webhook",
            )
        try:
            check_url(body.webhook, allow_private=self._allow_private)
        except ValueError as error:
            raise InvalidRequestError(f"webhook {error}", param="webhook") from error

    async def accept(self, bodies: Sequence[QueueBody], client: Client) -> list[JobStatusView]:
        """Take all of them in, or none; from here on they are not lost. The bodies have been checked.

        Raises JobsFullError, IdempotencyConflictError, JobsUnavailableError.
        """
        jobs = [_job(body, client) for body in bodies]
        try:
            waiting = (await self._store.counts())[JobState.QUEUED]
            if waiting + len(jobs) > self._max_queued:
                raise JobsFullError(
                    f"{waiting} jobs are queued, and the limit is {self._max_queued}; try again later",
                    retry_after=self._seconds(sum(job.characters for job in jobs)),
                )
            added = await self._store.add(jobs)
            self._executor.wake()
            first = await self._ahead(added[0])
        except IdempotencyError as error:
            raise IdempotencyConflictError(
                "this idempotencyKey has stood for another request; use a new one for each", param="idempotencyKey"
            ) from error
        except JobStoreError as error:
            raise unavailable(error) from error
        views, jobs_ahead, characters = [], first.jobs, first.characters
        for job in added:  # they lie one behind the other
            views.append(self._view(job, QueuedAhead(jobs_ahead, characters)))
            jobs_ahead, characters = jobs_ahead + 1, characters + job.characters
        return views

    async def status(self, job_id: str, client: Client) -> JobStatusView:
        """A job as it is now. Raises JobNotFoundError, JobsUnavailableError."""
        try:
            job = await self._store.get(job_id)
            return self._view(job := _of(job, client), await self._ahead(job))
        except JobStoreError as error:
            raise unavailable(error) from error

    async def cancel(self, job_id: str, client: Client) -> JobStatusView:
        """Cancel a job, which is done once. Raises JobNotFoundError, JobNotDoneError, JobsUnavailableError."""
        try:
            _of(await self._store.get(job_id), client)
            job = _of(await self._store.cancel(job_id), client)
        except JobStoreError as error:
            raise unavailable(error) from error
        if job.state is not JobState.CANCELLED:
            raise JobNotDoneError(f"the job is {job.state.value} already: there is nothing to cancel", code="job_final")
        self._executor.cancel(job_id)
        return self._view(job, QueuedAhead(0, 0))

    async def audio(self, job_id: str, client: Client) -> tuple[Job, Path]:
        """A finished job and its audio. Raises JobNotFoundError, JobNotDoneError, JobsUnavailableError."""
        try:
            job = _of(await self._store.get(job_id), client)
            if job.state is not JobState.DONE:
                raise JobNotDoneError(f"the job is {job.state.value}: ask /status/{job_id} until it is ready")
            file = await self._store.audio(job)
        except JobStoreError as error:
            raise unavailable(error) from error
        if file is None:
            raise JobNotFoundError(f"the audio of job {job_id} is gone")
        return job, file

    async def _ahead(self, job: Job) -> QueuedAhead:
        return await self._store.ahead(job) if job.state is JobState.QUEUED else QueuedAhead(0, 0)

    def _view(self, job: Job, ahead: QueuedAhead) -> JobStatusView:
        match job.state:
            case JobState.QUEUED:
                wait = max(0.0, job.due - time.time())
                return JobStatusView(job, ahead.jobs + 1, wait + self._seconds(ahead.characters + job.characters))
            case JobState.RUNNING:
                elapsed = time.time() - (job.started or time.time())
                return JobStatusView(job, 0, max(0.1, self._seconds(job.characters) - elapsed))
        return JobStatusView(job, 0, 0.0)

    def _seconds(self, characters: int) -> float:
        return characters / self._throughput.characters_per_second


def report(job: Job) -> dict[str, Any]:
    """What clients are told of a job, but for its place in line."""
    done = job.state is JobState.DONE
    return {
        "requestId": job.id,
        "ready": done,
        "state": job.state.value,
        "audioUrl": f"{job.base_url}/audio/{job.id}" if done else None,
        "statusUrl": f"{job.base_url}/status/{job.id}",
        "format": job.format,
        "mimeType": AudioFormat(job.format).media_type,
        "duration": None if job.seconds is None else round(job.seconds, 3),
        "attempts": job.attempts,
        "error": None if job.error is None else job.error.model_dump(),
        "userId": job.user_id,
        "createdAt": _iso(job.created),
        "finishedAt": None if job.finished is None else _iso(job.finished),
    }


def unavailable(error: JobStoreError) -> JobsUnavailableError:
    """The answer while jobs cannot be kept. What was accepted is still there."""
    return JobsUnavailableError(
        f"jobs cannot be taken in or looked up just now ({error}); those that were accepted are not lost",
        retry_after=5.0,
    )


def _job(body: QueueBody, client: Client) -> Job:
    request = body.request
    return Job(
        id=new_id(),
        caller=client.caller,
        owner=client.owner,
        user_id=body.user_id,
        body=request,
        base_url=client.base_url,
        characters=len(body.spoken_text),
        created=time.time(),
        idempotency_key=body.idempotency_key,
        request_digest=hashlib.sha256(json.dumps([request, body.webhook], sort_keys=True).encode()).hexdigest(),
        format=body.audio_format.value,
        webhook=body.webhook,
    )


def _of(job: Job | None, client: Client) -> Job:
    """A job that this client may know of: who hands one in with a key keeps it from other keys."""
    if job is None or job.owner not in (None, client.owner):
        raise JobNotFoundError("there is no such job; ids are what POST /queue answered, and are kept for a while")
    return job


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
