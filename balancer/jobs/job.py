"""One job, its states, and the transitions between them.

queued ──▶ running ──▶ done
   ▲          │  └───▶ failed      the request is invalid, or its attempts are used up; `error` has the reason
   └──────────┘                    the attempt failed and is retried later, or its process died
queued, running ─────▶ cancelled
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the job has ended: only a requeue changes its state."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class JobError(BaseModel):
    """Why the last attempt at a job failed, as clients see it."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class Job(BaseModel):
    """A request that was accepted, and its progress. Times are Unix times in seconds.

    The methods are its transitions; each returns a changed copy.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    caller: str
    """The API key's name, or the client's address."""
    owner: str | None = None
    """The name of the API key that may see the job; None: everybody who knows its id may."""
    user_id: str | None = None
    body: dict[str, Any]
    """The validated request, a body of `POST /tts`."""
    base_url: str = ""
    """The address of this server for the client that queued the job. Only webhooks use it: they answer no request."""
    characters: int
    created: float
    idempotency_key: str | None = None
    request_digest: str = ""
    """SHA-256 of the request, which tells whether a second request with the idempotency key is the same."""

    state: JobState = JobState.QUEUED
    attempts: int = 0
    due: float = 0.0
    """The job is not claimed before this time."""
    started: float | None = None
    finished: float | None = None
    error: JobError | None = None

    format: str = ""
    seconds: float | None = None
    """Duration of the audio."""
    digest: str | None = None
    """SHA-256 of the audio file."""

    webhook: str | None = None
    webhook_attempts: int = 0
    webhook_due: float | None = None
    """When the next delivery of the webhook is due; None: there is none to deliver."""
    webhook_error: str | None = None

    def claimed(self, now: float) -> Job:
        """Running since `now`; this counts as an attempt."""
        return self._with(state=JobState.RUNNING, attempts=self.attempts + 1, started=now)

    def done(self, now: float, *, seconds: float, digest: str) -> Job:
        """Done at `now`. `seconds` is the duration of the audio, `digest` its SHA-256."""
        return self._ended(JobState.DONE, now, seconds=seconds, digest=digest, error=None)

    def failed(self, now: float, error: JobError) -> Job:
        """Failed at `now`, not to be retried."""
        return self._ended(JobState.FAILED, now, error=error)

    def cancelled(self, now: float) -> Job:
        """Cancelled at `now`."""
        return self._ended(JobState.CANCELLED, now)

    def queued_for_retry(self, error: JobError, due: float) -> Job:
        """Queued again after a failed attempt, not to be claimed before `due`."""
        return self._with(state=JobState.QUEUED, error=error, due=due)

    def released(self) -> Job:
        """Queued again; the claim does not count as an attempt."""
        return self._with(state=JobState.QUEUED, attempts=self.attempts - 1, due=0.0)

    def orphaned(self) -> Job:
        """Queued again: the process that claimed it has died."""
        return self._with(state=JobState.QUEUED)

    def requeued(self) -> Job:
        """Queued again with its attempts reset."""
        return self._with(state=JobState.QUEUED, attempts=0, due=0.0, finished=None, error=None)

    def after_webhook_attempt(self, *, due: float | None, error: str | None) -> Job:
        """After an attempt to deliver the webhook; the next one is due at `due`, None: there is none."""
        return self._with(webhook_attempts=self.webhook_attempts + 1, webhook_due=due, webhook_error=error)

    def _ended(self, state: JobState, now: float, **changes: Any) -> Job:
        return self._with(state=state, finished=now, webhook_due=None if self.webhook is None else now, **changes)

    def _with(self, **changes: Any) -> Job:
        return self.model_copy(update=changes)

    @property
    def suffix(self) -> str:
        """Suffix of the audio file's name, such as `.wav`."""
        return f".{self.format}"


def new_id() -> str:
    """A random id. It cannot be guessed, because whoever knows it may get the audio of a job without an owner."""
    return secrets.token_urlsafe(18)
