"""The protocol of a store of jobs. A store does not lose a job that it has accepted, and no job has two results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job, JobError, JobState


class JobStoreError(Exception):
    """The store cannot be used at the moment; the message says which store, and why."""


class IdempotencyError(Exception):
    """The idempotency key was used for a different request."""


@dataclass(frozen=True)
class QueuedAhead:
    """The jobs that are queued before a job: how many, and the sum of their characters."""

    jobs: int
    characters: int


@dataclass(frozen=True)
class Result:
    """The audio of a job: the content of its file, its duration, and the SHA-256 of the content in hexadecimal."""

    audio: AudioBuffer
    seconds: float
    digest: str


class JobStore(Protocol):
    """Keeps jobs. Every method raises JobStoreError if the store cannot be used.

    A claim is one run of a job. It holds until the job leaves the state RUNNING, or another host claims the job.
    """

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Add jobs to the queue, all or none, and return them. They are durable once this returns.

        Where a job's caller has used its idempotency key before, the earlier job is returned in its place. Raises
        IdempotencyError if the earlier job was a different request.
        """

    async def get(self, job_id: str) -> Job | None:
        """The job in its current state; None if there is no such job."""

    async def ahead(self, job: Job) -> QueuedAhead:
        """The jobs that are queued before this job."""

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """The jobs with these ids, and what is queued before each; unknown ids are left out.

        One look costs about as much for a thousand jobs as for one.
        """

    async def claim(self) -> Job | None:
        """Claim the next job that is due: its state is RUNNING and its attempts are incremented. None if none is due.

        No other host gets the job while the claim holds.
        """

    async def finish(self, job: Job, result: Result) -> bool:
        """Set a claimed job to DONE. Returns False, and stores nothing, if the claim no longer holds."""

    async def fail(self, job: Job, error: JobError) -> bool:
        """Set a claimed job to FAILED. Returns False if the claim no longer holds."""

    async def retry_later(self, job: Job, error: JobError, due: float) -> bool:
        """Queue a claimed job again, not to be claimed before `due`. Returns False if the claim no longer holds."""

    async def release(self, job: Job) -> None:
        """Queue a claimed job again; the claim does not count as an attempt."""

    async def cancel(self, job_id: str) -> Job | None:
        """Set a job to CANCELLED unless its state is final, and return it; None if there is no such job."""

    async def audio(self, job: Job) -> Path | None:
        """A file with the audio of a job that is done; None if it no longer exists."""

    async def counts(self) -> dict[JobState, int]:
        """The number of jobs in each state."""

    async def failed(self, limit: int) -> list[Job]:
        """The jobs that failed last, the latest first."""

    async def requeue(self, job_id: str) -> Job | None:
        """Queue a failed job again with its attempts reset; None if there is no such failed job."""

    async def webhooks_due(self, now: float) -> list[Job]:
        """Jobs whose webhooks are due to be delivered at `now`, for this host to deliver."""

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """Record an attempt to deliver a webhook: its error, if any, and when the next one is due; None: never."""

    async def purge(self, before: float) -> int:
        """Delete jobs that ended before that time, with their audio, and return how many.

        One call deletes a limited number; jobs whose webhooks are still to be delivered stay.
        """

    async def aclose(self) -> None:
        """Close files and connections."""
