"""One job, its states, and the transitions between them.

queued ──▶ running ──▶ done
   ▲          │  └───▶ failed      the request is invalid, or its attempts are used up; `error` has the reason
   └──────────┘                    the attempt failed and is retried later, or its process died
queued, running ─────▶ cancelled
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from balancer.audio.formats import AudioFormat
from balancer.settings.access import IDENTITY_PREFIX

UnixTime = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
"""Seconds since 1970, before the year 5000: every one of them is a date."""
Count = Annotated[int, Field(ge=0)]


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


class KeptCounts(NamedTuple):
    """The segments that a store keeps of a job that has not ended, and the bytes of their PCM."""

    segments: int = 0
    bytes: int = 0
    playable: int = 0
    """Segments from the first one on, none of which is missing."""
    playable_bytes: int = 0


NOTHING_KEPT = KeptCounts()

ID_BYTES = 18
"""Random bytes of a job's id."""


class JobError(BaseModel):
    """Why the last attempt at a job failed, as clients see it."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class Job(BaseModel):
    """A request that was accepted, and its progress. Times are Unix times in seconds.

    The methods are its transitions; each returns a changed copy.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    id: str
    caller: str
    """The API key's name, or the client's address."""
    owner: str | None = None
    """The identity of the API key that may see the job; None: everybody who knows its id may.

    Jobs of earlier versions have the key's name here, which no identity equals.
    """
    concurrency: int | None = None
    """The most jobs of the caller that may run at once; None: as many as there are slots."""
    user_id: str | None = None
    body: dict[str, Any]
    """The validated request, a body of `POST /tts`."""
    base_url: str = ""
    """The address of this server for the client that queued the job. Only webhooks use it: they answer no request."""
    characters: Count
    created: UnixTime
    idempotency_key: str | None = None
    request_digest: str = ""
    """SHA-256 of the request, which tells whether a second request with the idempotency key is the same."""

    state: JobState = JobState.QUEUED
    attempts: Count = 0
    due: UnixTime = 0.0
    """The job is not claimed before this time."""
    started: UnixTime | None = None
    finished: UnixTime | None = None
    error: JobError | None = None

    segments: Count | None = None
    """The number of segments that the text is spoken in; None: it is spoken whole, or has not been begun."""
    segments_done: Count = 0
    """Finished segments."""
    segment_bytes: Count = 0
    """Bytes of PCM of the finished segments of a job that has not ended."""
    playable_segments: Count = 0
    """Finished segments from the first one on, none of which is missing."""
    playable_bytes: Count = 0
    """Bytes of their PCM."""
    segmentation: str = Field(default="", alias="plan")
    """Digest of all that determines the segments: only segments of one segmentation belong together.

    Stores and earlier versions know it as `plan`.
    """
    segments_before: Count = 0
    """Segments that were finished when the latest run began."""
    attempts_excused: Count = 0
    """Attempts up to the last one in which a segment was finished, which do not count against the job."""

    format: str = ""
    seconds: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """Duration of the audio."""
    digest: str | None = None
    """SHA-256 of the audio file."""
    size: Count = 0
    """Size of the audio file in bytes; of a running job, the bytes that are reserved for its segments and its file."""
    expected_size: Count = 0
    """Bytes that its segments, or else its file, are expected to take up; 0: unknown."""

    webhook: str | None = None
    webhook_attempts: Count = 0
    webhook_due: UnixTime | None = None
    """Time at which the next delivery of the webhook is due; None: there is none to deliver."""
    webhook_error: str | None = None

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        return AudioFormat(name).value

    @property
    def caller_id(self) -> str:
        """The caller whose turns, limits and idempotency keys these are: the API key's identity, or the address."""
        return self.caller if self.owner is None else self.owner

    @property
    def fruitless_attempts(self) -> int:
        """Attempts since a segment was last finished, the present one included: a long job may outlive many crashes."""
        return 1 if self.segments_done > self.segments_before else self.attempts - self.attempts_excused

    def claimed(self, now: float, reserved: int = 0) -> Job:
        """Running since `now`, with `reserved` bytes for its audio; this counts as an attempt."""
        return self._with(state=JobState.RUNNING, attempts=self.attempts + 1, started=now, size=reserved)

    def expecting(self, size: int) -> Job:
        """With audio that is expected to take up `size` bytes."""
        return self._with(expected_size=size)

    def reserving(self, size: int) -> Job:
        """With `size` bytes reserved for its audio."""
        return self._with(size=size)

    def with_segmentation(self, segmentation: str, segments: int, done: int) -> Job:
        """To be spoken in so many segments, of which `done` were finished by earlier attempts."""
        return self._with(
            segmentation=segmentation,
            segments=segments,
            segments_done=done,
            segments_before=done,
            attempts_excused=self.attempts - self.fruitless_attempts,
        )

    def with_segments_done(self, done: int) -> Job:
        """With so many segments finished."""
        return self._with(segments_done=done)

    def keeping(self, kept: KeptCounts) -> Job:
        """With these segments finished."""
        return self._with(
            segments_done=kept.segments,
            segment_bytes=kept.bytes,
            playable_segments=kept.playable,
            playable_bytes=kept.playable_bytes,
        )

    def without_segments(self) -> Job:
        """To be begun anew. The attempts that are excused stay so."""
        return self._with(attempts_excused=self.attempts - self.fruitless_attempts, **_UNBEGUN)

    def done(self, now: float, *, seconds: float, digest: str, size: int) -> Job:
        """Done at `now`. `seconds` is the duration of the audio, `digest` its SHA-256, `size` its bytes."""
        segments_done = self.segments or 0
        return self._ended(
            JobState.DONE, now, seconds=seconds, digest=digest, size=size, segments_done=segments_done, error=None
        )

    def failed(self, now: float, error: JobError) -> Job:
        """Failed at `now`, not to be retried."""
        return self._ended(JobState.FAILED, now, error=error, size=0)

    def cancelled(self, now: float) -> Job:
        """Cancelled at `now`."""
        return self._ended(JobState.CANCELLED, now, size=0)

    def queued_for_retry(self, error: JobError, due: float, *, counts: bool = True) -> Job:
        """Queued again, not to be claimed before `due`, after an attempt that failed, and that may not count."""
        return self._queued(error=error, due=due, attempts=self.attempts - (not counts))

    def released(self) -> Job:
        """Queued again; the claim does not count as an attempt."""
        return self._queued(attempts=self.attempts - 1, due=0.0)

    def orphaned(self) -> Job:
        """Queued again: the process that claimed it has died."""
        return self._queued()

    def requeued(self) -> Job:
        """Queued again with its attempts reset."""
        return self._queued(
            **{"attempts": 0, "attempts_excused": 0, "due": 0.0, "finished": None, "error": None}, **_UNBEGUN
        )

    def after_webhook_attempt(self, *, due: float | None, error: str | None) -> Job:
        """After an attempt to deliver the webhook; the next one is due at `due`, None: there is none."""
        return self._with(webhook_attempts=self.webhook_attempts + 1, webhook_due=due, webhook_error=error)

    def with_webhook_due(self, due: float) -> Job:
        """With its webhook to be delivered at `due`; nothing counts as an attempt."""
        return self._with(webhook_due=due)

    def to_json(self) -> str:
        """The job as it is stored."""
        return self.model_dump_json(by_alias=True)

    def _queued(self, **changes: Any) -> Job:
        return self._with(state=JobState.QUEUED, size=0, **changes)

    def _ended(self, state: JobState, now: float, **changes: Any) -> Job:
        webhook_due = None if self.webhook is None else now
        return self._with(state=state, finished=now, webhook_due=webhook_due, **_NO_SEGMENTS, **changes)

    def _with(self, **changes: Any) -> Job:
        return self.model_copy(update=changes)

    @property
    def suffix(self) -> str:
        """Suffix of the audio file's name, such as `.wav`."""
        return f".{self.format}"


_NO_SEGMENTS: dict[str, Any] = {"segment_bytes": 0, "playable_segments": 0, "playable_bytes": 0}
_UNBEGUN: dict[str, Any] = _NO_SEGMENTS | {
    "segmentation": "",
    "segments": None,
    "segments_done": 0,
    "segments_before": 0,
}
"""The fields of a job of which no segment is begun."""


def new_ids(count: int) -> list[str]:
    """Random ids. None can be guessed, because whoever knows it may get the audio of a job without an owner.

    They are drawn in one call: a thread that calls the system for each of thousands lets go of the interpreter for a
    moment each time, and has it back before the event loop, whose time-out it resets, is awake.
    """
    drawn = secrets.token_bytes(count * ID_BYTES)
    return [urlsafe_b64encode(drawn[first : first + ID_BYTES]).decode() for first in range(0, len(drawn), ID_BYTES)]


class UnreadableJobError(ValueError):
    """The stored content is no job of this version; the message says why."""


def read_job(job_id: str, content: str | bytes, kept: KeptCounts = NOTHING_KEPT) -> Job:
    """The job `job_id` from its JSON, with the segments that are kept for it. Raises UnreadableJobError."""
    try:
        job = Job.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the job"
        raise UnreadableJobError(f"{where}: {fault['msg']}") from error
    if job.id != job_id:
        raise UnreadableJobError("id: it is the id of another job")
    return job if job.state.final else job.keeping(kept)


def stand_in(job_id: str, caller_id: str, now: float, reason: UnreadableJobError, **fields: Any) -> Job:
    """A failed job that takes the place of one that cannot be read, so that its client hears of it."""
    message = f"the stored job could not be read, and was set aside ({reason}); queue it again"
    return Job(
        id=job_id,
        caller=caller_id,
        owner=caller_id if caller_id.startswith(IDENTITY_PREFIX) else None,
        body={},
        characters=0,
        created=now,
        state=JobState.FAILED,
        finished=now,
        error=JobError(code="job_unreadable", message=message),
        format=AudioFormat.WAV.value,
        **fields,
    )
