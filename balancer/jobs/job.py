"""One job and its states.

queued ──▶ running ──▶ done
   ▲          │  └───▶ failed      the reason is kept: what cannot be spoken, or failed too often
   └──────────┘                    it failed and is tried again later, or its host died
queued, running ─────▶ cancelled
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more becomes of it."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class JobError(BaseModel):
    """Why a job failed, or failed last, as clients see it."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class Job(BaseModel):
    """A request that was accepted. Times are Unix time in seconds."""

    model_config = ConfigDict(frozen=True)

    id: str
    caller: str
    """Who handed it in: the key's name or the address."""
    owner: str | None = None
    """The name of its API key; a job without one is anybody's who knows its id."""
    user_id: str | None = None
    body: dict[str, Any]
    """The request as it came, checked: what `/tts` takes."""
    base_url: str = ""
    """Where its client reaches this server, for the addresses it is told."""
    characters: int
    created: float
    idempotency_key: str | None = None
    request_digest: str = ""
    """Of the request: one idempotency key must not stand for two."""

    state: JobState = JobState.QUEUED
    attempts: int = 0
    due: float = 0.0
    """Not before then."""
    started: float | None = None
    finished: float | None = None
    error: JobError | None = None

    format: str = ""
    seconds: float | None = None
    """Of the audio."""
    digest: str | None = None
    """SHA-256 of the audio file."""

    webhook: str | None = None
    webhook_attempts: int = 0
    webhook_due: float | None = None
    """When the webhook is told next; None: not, or not any more."""
    webhook_error: str | None = None

    def claimed(self, now: float) -> Job:
        """Running from now on, which counts as an attempt."""
        return self._with(state=JobState.RUNNING, attempts=self.attempts + 1, started=now)

    def done(self, now: float, *, seconds: float, digest: str) -> Job:
        """With a result."""
        return self._ended(JobState.DONE, now, seconds=seconds, digest=digest, error=None)

    def failed(self, now: float, error: JobError) -> Job:
        """Not to be tried again."""
        return self._ended(JobState.FAILED, now, error=error)

    def cancelled(self, now: float) -> Job:
        """Not wanted any more."""
        return self._ended(JobState.CANCELLED, now)

    def queued_for_retry(self, error: JobError, due: float) -> Job:
        """Queued again, not before `due`."""
        return self._with(state=JobState.QUEUED, error=error, due=due)

    def released(self) -> Job:
        """Queued again as if it had not been claimed."""
        return self._with(state=JobState.QUEUED, attempts=self.attempts - 1, due=0.0)

    def orphaned(self) -> Job:
        """Queued again: whoever claimed it has died."""
        return self._with(state=JobState.QUEUED)

    def requeued(self) -> Job:
        """Queued again as if it were new."""
        return self._with(state=JobState.QUEUED, attempts=0, due=0.0, finished=None, error=None)

    def after_webhook_attempt(self, *, due: float | None, error: str | None) -> Job:
        """After a try to tell its webhook, which is told again at `due`, or never."""
        return self._with(webhook_attempts=self.webhook_attempts + 1, webhook_due=due, webhook_error=error)

    def _ended(self, state: JobState, now: float, **changes: Any) -> Job:
        return self._with(state=state, finished=now, webhook_due=None if self.webhook is None else now, **changes)

    def _with(self, **changes: Any) -> Job:
        return self.model_copy(update=changes)

    @property
    def suffix(self) -> str:
        """Ending of the audio file's name."""
        return f".{self.format}"


def new_id() -> str:
    """An id that nobody guesses: who knows it may listen."""
    return secrets.token_urlsafe(18)
