"""The protocol of a store of jobs. A store does not lose a job that it has accepted, and no job has two results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job, JobError, JobState
from balancer.settings.jobs import JobSettings

LONG_CHARACTERS = 5000
"""A job with more characters is a long one: it may take all slots for hours, segment by segment."""
MAX_DUE_SECONDS = 3600.0
"""A job due later than this was delayed by another clock, as no pause is so long; it counts as due."""
MAX_WEBHOOK_DUE_SECONDS = 2 * 86_400.0
"""The same for webhooks."""


class JobStoreError(Exception):
    """The store cannot be used at the moment; the message says which store, and why."""


class IdempotencyError(Exception):
    """The idempotency key was used for a different request."""


class StoreFullError(Exception):
    """There is no room for `needed` queued jobs or bytes of audio: `used` of `limit` is taken."""

    def __init__(self, used: int, limit: int, needed: int, *, audio: bool, own: bool) -> None:
        super().__init__(f"{used} of {limit}")
        self.used = used
        self.limit = limit
        self.needed = needed
        self.audio = audio
        """Whether bytes of audio are full, rather than queued jobs."""
        self.own = own
        """Whether it is the caller's own share that is full."""


@dataclass(frozen=True)
class JobLimits:
    """How much a store holds. `share` is the largest part of each limit that one caller may take."""

    queued: int = 2**53
    audio_bytes: int = 2**53
    """Bytes of finished jobs' audio, of what is reserved for running ones, and of interrupted ones' segments. Past it
    jobs are neither accepted nor claimed, unless `evicts`."""
    share: float = 1.0
    evicts: bool = False
    """Whether the oldest finished jobs are deleted to make room."""

    @classmethod
    def of(cls, settings: JobSettings) -> Self:
        """The limits that the operator has set."""
        return cls(
            settings.jobs_limit, settings.jobs_bytes, settings.jobs_caller_share, settings.jobs_when_full == "evict"
        )

    @property
    def caller_queued(self) -> int:
        """Queued jobs of one caller."""
        return max(1, int(self.queued * self.share))

    @property
    def caller_audio_bytes(self) -> int:
        """Bytes of one caller's audio."""
        return max(1, int(self.audio_bytes * self.share))

    def reserved(self, expected_size: int) -> int:
        """Bytes that are reserved for a running job's audio: an expectation too large must not keep it from running."""
        return min(expected_size, self.caller_audio_bytes)


@dataclass(frozen=True)
class Usage:
    """What the jobs of a store, and those of one caller, take up."""

    queued: int
    audio_bytes: int
    caller_queued: int
    caller_audio_bytes: int

    def check_room(self, new: int, expected_size: int, limits: JobLimits) -> None:
        """Raise StoreFullError if `new` more jobs of the caller exceed the limits.

        There must be room for audio of `expected_size`, that of the smallest one: the others may wait for theirs.
        """
        if new == 0:
            return
        shared = limits.share < 1
        if shared and self.caller_queued + new > limits.caller_queued:
            raise StoreFullError(self.caller_queued, limits.caller_queued, new, audio=False, own=True)
        if self.queued + new > limits.queued:
            raise StoreFullError(self.queued, limits.queued, new, audio=False, own=False)
        self.check_audio(limits.reserved(expected_size), limits)

    def check_audio(self, size: int, limits: JobLimits, counted: int = 0) -> None:
        """Raise StoreFullError if the caller's audio exceeds the limits with `size` bytes where `counted` were.

        Where the limits are reached without it, there is no room for audio of no size, either.
        """
        if limits.evicts:
            return
        size = max(1, size)
        used, used_by_caller = self.audio_bytes - counted, self.caller_audio_bytes - counted
        shared = limits.share < 1  # else a caller's part is the whole
        if shared and used_by_caller + size > limits.caller_audio_bytes:
            raise StoreFullError(used_by_caller, limits.caller_audio_bytes, size, audio=True, own=True)
        if used + size > limits.audio_bytes:
            raise StoreFullError(used, limits.audio_bytes, size, audio=True, own=False)


@dataclass(frozen=True)
class DeliveryRoom:
    """How many more webhooks can be delivered at once: in all, of one caller, and of one caller to one URL."""

    total: int = 100
    per_caller: int = 100
    per_receiver: int = 100
    running: frozenset[str] = frozenset()
    """Ids of the jobs whose webhooks are being delivered."""
    callers: Mapping[str, int] = field(default_factory=dict)
    """Deliveries that run, by `caller_id`."""
    receivers: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Deliveries that run, by `caller_id` and URL."""


ANY_ROOM = DeliveryRoom()
"""Room for a hundred deliveries, while none runs."""


@dataclass(frozen=True)
class QueuedAhead:
    """The jobs that are queued before a job: how many, and the sum of their characters."""

    jobs: int
    characters: int


@dataclass(frozen=True)
class JobResult:
    """The audio of a job: the content of its file, its duration, and the SHA-256 of the content in hexadecimal."""

    audio: AudioBuffer
    seconds: float
    digest: str


class JobStore(Protocol):
    """Keeps jobs. Every method raises JobStoreError if the store cannot be used.

    Callers take turns: a caller's first job comes before the second job of any other. A stored job that cannot be read
    is set aside where it is met: it has failed then, and everything else goes on.

    A claim is one run of a job. It holds until the job leaves the state RUNNING, or another host claims the job.
    """

    unreadable: int
    """How many jobs this process has set aside because they could not be read."""
    max_result_bytes: int
    """Size of the largest result that the store takes, whatever the limits."""

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Add jobs to the queue, all or none, and return them. They are durable once this returns.

        They are jobs of one caller. Where it has used a job's idempotency key before, in this call or an earlier one,
        the earlier job is returned in its place. Raises IdempotencyError if the earlier job was a different request,
        StoreFullError if there is no room for the new ones.
        """

    async def get(self, job_id: str) -> Job | None:
        """The job in its current state; None if there is no such job."""

    async def ahead(self, job: Job) -> QueuedAhead:
        """The jobs that are queued before this job."""

    async def ahead_all(self, jobs: Sequence[Job]) -> list[QueuedAhead]:
        """`ahead` of each of these jobs."""

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """The jobs with these ids, and what is queued before each; unknown ids are left out.

        One look costs about as much for a thousand jobs as for one.
        """

    async def claim(self, without_long_of: Collection[str] | None = ()) -> Job | None:
        """Claim the next job that is due: its state is RUNNING and its attempts are incremented. None if none is due.

        No other host gets the job while the claim holds. A caller whose `concurrency` jobs run, or whose share of the
        audio has no room for what the job is expected to make, is passed over; so are the long jobs of the callers in
        `without_long_of`, None: of all. That room is reserved for the job.
        """

    async def begin_segments(self, job: Job, plan: str, total: int) -> tuple[Job, Collection[int]] | None:
        """Begin to speak a claimed job in `total` segments; returns the job, and the segments that are kept already.

        They are numbered from 0. Segments of another plan are dropped. None if the claim no longer holds.
        """

    async def keep_segment(self, job: Job, number: int, audio: AudioBuffer) -> bool:
        """Keep the PCM of a segment until the job has ended, whatever happens; it may be empty.

        It takes up the room that is reserved for the job. Raises StoreFullError if the job needs more, and there is no
        room. Returns False, and keeps nothing, if the claim no longer holds.
        """

    async def segment(self, job: Job, number: int) -> bytes | None:
        """The PCM of a segment of the job's plan, whether its claim holds or not; None if it is not kept."""

    async def segment_files(self, job: Job) -> Sequence[Path]:
        """Files with the kept segments of a claimed job, in their order. They are there until the job has ended."""

    async def finish(self, job: Job, result: JobResult) -> bool:
        """Set a claimed job to DONE. Returns False, and stores nothing, if the claim no longer holds.

        Raises StoreFullError if there is no room for the audio.
        """

    async def fail(self, job: Job, error: JobError) -> bool:
        """Set a claimed job to FAILED. Returns False if the claim no longer holds."""

    async def retry_later(self, job: Job, error: JobError, due: float, *, counts: bool = True) -> bool:
        """Queue a claimed job again, not to be claimed before `due`. Returns False if the claim no longer holds.

        The claim counts as an attempt, unless `counts` is false. The segments of a job without a plan are dropped.
        """

    async def release(self, job: Job) -> None:
        """Queue a claimed job again; the claim does not count as an attempt."""

    async def cancel(self, job_id: str) -> Job | None:
        """Set a job to CANCELLED unless its state is final, and return it; None if there is no such job."""

    async def delete(self, job_id: str) -> Job | None:
        """Delete a job whose state is final, with its audio; returns what it was, None if there is no such job."""

    async def audio(self, job: Job) -> Path | None:
        """A file with the audio of a job that is done; None if it no longer exists."""

    async def counts(self) -> dict[JobState, int]:
        """The number of jobs in each state."""

    async def audio_bytes(self) -> int:
        """Size of the audio of all finished jobs, with what is reserved for running ones."""

    async def failed(self, limit: int) -> list[Job]:
        """The jobs that failed last, the latest first."""

    async def requeue(self, job_id: str) -> Job | None:
        """Queue a failed job again with its attempts reset; None if there is no such failed job."""

    async def webhooks_due(self, now: float, room: DeliveryRoom = ANY_ROOM) -> list[Job]:
        """Jobs whose webhooks are due to be delivered at `now`, for this host to deliver, as far as there is room.

        Callers of whom fewer are being delivered come first.
        """

    async def postpone_webhook(self, job: Job, *, due: float) -> None:
        """Deliver a webhook at `due`, without counting an attempt."""

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """Record an attempt to deliver a webhook: its error, if any, and when the next one is due; None: never."""

    async def purge(self, before: float) -> int:
        """Delete jobs that ended before that time, with their audio, and return how many.

        One call deletes a limited number; jobs whose webhooks are still to be delivered stay.
        """

    async def evict(self) -> int:
        """Delete the oldest finished jobs while their audio exceeds the limits, if these say so; returns how many."""

    async def stop_claiming(self) -> None:
        """Let another process of this host claim jobs. What needs no claim can still be asked for."""

    async def aclose(self) -> None:
        """Close files and connections."""
