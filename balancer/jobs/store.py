"""The protocol of a store of jobs. What it has accepted it does not lose, and no job has two results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from balancer.jobs.job import Job, JobError, JobState


class JobStoreError(Exception):
    """The store cannot be used just now; the message says which and why."""


class IdempotencyError(Exception):
    """The idempotency key has stood for another request already."""


@dataclass(frozen=True)
class QueuedAhead:
    """What is queued before a job."""

    jobs: int
    characters: int


@dataclass(frozen=True)
class Result:
    """The audio of a job: a finished file, and how long it plays."""

    audio: bytes
    seconds: float
    digest: str


class JobStore(Protocol):
    """Every method raises JobStoreError where the store is gone."""

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Keep them, all or none, for good once this returns.

        A job whose caller has used its idempotency key before is not added: the job of then is in its place. Raises
        IdempotencyError where that was another request.
        """

    async def get(self, job_id: str) -> Job | None:
        """The job as it is now."""

    async def ahead(self, job: Job) -> QueuedAhead:
        """What is queued before it."""

    async def claim(self) -> Job | None:
        """The next job that is due, running from now on, its attempts counted; no other host gets it meanwhile."""

    async def finish(self, job: Job, result: Result) -> bool:
        """A claimed job is done. False, and nothing kept, where it is not this claim's any more."""

    async def fail(self, job: Job, error: JobError) -> bool:
        """A claimed job will not be tried again. False as above."""

    async def retry_later(self, job: Job, error: JobError, due: float) -> bool:
        """A claimed job is queued again, not before `due`. False as above."""

    async def release(self, job: Job) -> None:
        """A claimed job is queued again as if it had not been claimed."""

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel it, if it is not final already; the job as it then is."""

    async def audio(self, job: Job) -> Path | None:
        """A file with the audio of a job that is done; None where it has gone."""

    async def counts(self) -> dict[JobState, int]:
        """How many there are in each state."""

    async def failed(self, limit: int) -> list[Job]:
        """The latest jobs that failed."""

    async def requeue(self, job_id: str) -> Job | None:
        """Queue a job that failed again, its attempts forgotten; None where there is no such job."""

    async def webhooks_due(self, now: float) -> list[Job]:
        """Final jobs whose webhooks are to be told."""

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """A webhook was tried: it is tried again at `due`, or never."""

    async def purge(self, before: float) -> int:
        """Drop final jobs that ended before then, with their audio; how many."""

    async def aclose(self) -> None:
        """Let go of files and connections."""
