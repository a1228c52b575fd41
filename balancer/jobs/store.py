"""The protocol of a store of jobs. A store does not lose a job that it has accepted, and no job has two results.

A store has parts, each a protocol of its own: claims, places in the queue, segments, the outbox of webhooks, and
retention. Every method raises JobStoreError if the store cannot be used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job, JobError, JobState

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


@dataclass(frozen=True)
class DeliveryRoom:
    """Room for more deliveries of webhooks at once: in all, of one caller, and of one caller to one URL."""

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


NOTHING_AHEAD = QueuedAhead(0, 0)


@dataclass(frozen=True)
class JobResult:
    """The audio of a job: the content of its file, its duration, and the SHA-256 of the content in hexadecimal."""

    audio: AudioBuffer
    seconds: float
    digest: str


class JobClaims(Protocol):
    """Claims queued jobs, and ends their claims.

    A claim is one run of a job. It holds until the job leaves the state RUNNING, or another host claims the job.

    Callers take turns: a caller's first job comes before the second job of any other.
    """

    async def claim_next(self, without_long_of: Collection[str] | None = ()) -> Job | None:
        """Claim the next job that is due: its state is RUNNING and its attempts are incremented. None if none is due.

        No other host gets the job while the claim holds. A caller whose `concurrency` jobs run, or whose share of the
        audio has no room for what the job is expected to make, is passed over; so are the long jobs of the callers in
        `without_long_of`, None: of all. That room is reserved for the job.
        """

    async def finish(self, job: Job, result: JobResult) -> bool:
        """Set a claimed job to DONE. Returns False, and stores nothing, if the claim no longer holds.

        Raises StoreFullError if there is no room for the audio.
        """

    async def fail(self, job: Job, error: JobError) -> bool:
        """Set a claimed job to FAILED. Returns False if the claim no longer holds."""

    async def retry_later(self, job: Job, error: JobError, due: float, *, counts: bool = True) -> bool:
        """Queue a claimed job again, not to be claimed before `due`. Returns False if the claim no longer holds.

        The claim counts as an attempt, unless `counts` is false. The segments of a job without a segmentation are
        dropped.
        """

    async def release(self, job: Job) -> None:
        """Queue a claimed job again; the claim does not count as an attempt."""

    async def stop(self) -> None:
        """Let another process of this host claim jobs. All that needs no claim can still be asked for."""


class QueuePlaces(Protocol):
    """The places of queued jobs in the order in which they are claimed."""

    async def ahead(self, job: Job) -> QueuedAhead:
        """The jobs that are queued before this job."""

    async def ahead_all(self, jobs: Sequence[Job]) -> list[QueuedAhead]:
        """`ahead` of each of these jobs."""


class JobSegments(Protocol):
    """Keeps the finished segments of jobs that have not ended, so that each is spoken once, whatever happens."""

    async def begin(self, job: Job, segmentation: str, total: int) -> tuple[Job, Collection[int]] | None:
        """Begin to speak a claimed job in `total` segments; returns the job, and the segments that are kept already.

        They are numbered from 0. Segments of another segmentation are dropped. None if the claim no longer holds.
        """

    async def keep(self, job: Job, number: int, audio: AudioBuffer) -> bool:
        """Keep the PCM of a segment until the job has ended, whatever happens; it may be empty.

        It takes up the room that is reserved for the job. Raises StoreFullError if the job needs more, and there is no
        room. Returns False, and keeps nothing, if the claim no longer holds.
        """

    async def read(self, job: Job, number: int) -> bytes | None:
        """The PCM of a segment of the job's segmentation, whether its claim holds or not; None if it is not kept."""

    async def files(self, job: Job) -> Sequence[Path]:
        """Files with the kept segments of a claimed job, in their order. They are there until the job has ended."""


class WebhookOutbox(Protocol):
    """The webhooks of ended jobs that are still to be delivered."""

    async def due(self, now: float, room: DeliveryRoom = ANY_ROOM) -> list[Job]:
        """Jobs whose webhooks are due to be delivered at `now`, for this host to deliver, as far as there is room.

        Callers of whom fewer are being delivered come first.
        """

    async def postpone(self, job: Job, *, due: float) -> None:
        """Deliver a webhook at `due`, without counting an attempt."""

    async def record_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """Record an attempt to deliver a webhook: its error, if any, and when the next one is due; None: never."""


class JobRetention(Protocol):
    """Deletes ended jobs that are old, or whose audio takes up too much."""

    async def audio_bytes(self) -> int:
        """Size of the audio of all finished jobs, with the bytes that are reserved for running ones."""

    async def purge(self, before: float) -> int:
        """Delete jobs that ended before that time, with their audio, and return how many.

        One call deletes a limited number; jobs whose webhooks are still to be delivered stay.
        """

    async def evict(self) -> int:
        """Delete the oldest finished jobs while their audio exceeds the limits, if these say so; returns how many."""


class JobStore(Protocol):
    """Keeps jobs. A stored job that cannot be read is set aside where it is met: it has failed, the rest goes on."""

    @property
    def unreadable(self) -> int:
        """The number of jobs that this process has set aside because they could not be read."""

    @property
    def max_result_bytes(self) -> int:
        """Size of the largest result that the store takes, whatever the limits."""

    @property
    def claims(self) -> JobClaims:
        """The claims of this host."""

    @property
    def places(self) -> QueuePlaces:
        """The places of queued jobs."""

    @property
    def segments(self) -> JobSegments:
        """The finished segments of jobs that have not ended."""

    @property
    def outbox(self) -> WebhookOutbox:
        """The webhooks to be delivered."""

    @property
    def retention(self) -> JobRetention:
        """The deletion of ended jobs."""

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Add jobs to the queue, all or none, and return them. They are durable once this returns.

        They are jobs of one caller. Where it has used a job's idempotency key before, in this call or an earlier one,
        the earlier job is returned in its place. Raises IdempotencyError if the earlier job was a different request,
        StoreFullError if there is no room for the new ones.
        """

    async def get(self, job_id: str) -> Job | None:
        """The job in its current state; None if there is no such job."""

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """The jobs with these ids, and what is queued before each; unknown ids are left out.

        One look costs about as much for a thousand jobs as for one.
        """

    async def audio(self, job: Job) -> Path | None:
        """A file with the audio of a job that is done; None if it no longer exists."""

    async def counts(self) -> dict[JobState, int]:
        """The number of jobs in each state."""

    async def failed(self, limit: int) -> list[Job]:
        """The jobs that failed last, the latest first."""

    async def requeue(self, job_id: str) -> Job | None:
        """Queue a failed job again with its attempts reset; None if there is no such failed job."""

    async def cancel(self, job_id: str) -> Job | None:
        """Set a job to CANCELLED unless its state is final, and return it; None if there is no such job."""

    async def delete(self, job_id: str) -> Job | None:
        """Delete a job whose state is final, with its audio; returns what it was, None if there is no such job."""

    async def aclose(self) -> None:
        """Close files and connections."""
