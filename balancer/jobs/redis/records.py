"""The jobs in Redis, each a hash with the whole job as JSON, and the scripts and errors of all parts of the store.

Every change of a job is one Lua script (`lua/*.lua`), so no reader sees a change half made.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from balancer.jobs.job import Job, JobState, KeptCounts, UnreadableJobError, read_job, stand_in
from balancer.jobs.limits import JobLimits, StoreFullError
from balancer.jobs.redis.keys import JOB, KEPT, SCRIPT_KEYS, idempotency_key
from balancer.jobs.store import JobStoreError
from balancer.redis.client import RedisClient, RedisUnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")
RunScript = Callable[..., Awaitable[Any]]
"""Runs a script with its arguments, and returns its result. Raises JobStoreError."""


class JobRecords:
    """The parts of a store share it. `clock` gives Unix time; `lease` is in seconds."""

    def __init__(self, redis: RedisClient, lease: float, clock: Callable[[], float], limits: JobLimits) -> None:
        self._redis = redis
        self.lease_milliseconds = round(lease * 1000)
        self.clock = clock
        self.limits = limits
        self.unreadable = 0
        """Jobs that were set aside because they could not be read."""
        self._transition_script = self.load("transition")

    def load(self, name: str) -> RunScript:
        """The script `lua/<name>.lua`."""
        script = self._redis.load_script("balancer.jobs.redis", "index", name, durable=True)

        async def run(*arguments: Any) -> Any:
            return await self.execute(lambda _: script(SCRIPT_KEYS, arguments))

        return run

    async def execute(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Call `work` with the redis-py client and return its result. Raises JobStoreError."""
        try:
            return await self._redis.execute(work)
        except RedisUnavailableError as error:
            raise JobStoreError(str(error)) from error

    async def get(self, job_id: str) -> Job | None:
        """The job with this id; None if there is none. One that cannot be read is set aside."""
        fields = ("content", "state", "attempts", "caller", "key", *KEPT)
        content, state, attempts, caller, key, *kept = await self.execute(
            lambda redis: redis.hmget(f"{JOB}{job_id}", *fields)
        )
        if content is None and state is None:
            return None
        try:
            return read_job(job_id, content or b"", kept_counts(kept))
        except UnreadableJobError as error:
            return await self._set_aside(job_id, content or b"", state, attempts, caller or b"", key or b"", error)

    async def read(self, job_ids: Collection[str]) -> list[Job]:
        """The jobs with these ids, read at once; unknown ids are left out."""
        jobs = []
        found = await self.execute(partial(_contents, job_ids))
        for job_id, (content, state, *kept) in zip(job_ids, found, strict=True):
            if content is None and state is None:
                continue
            try:
                jobs.append(read_job(job_id, content or b"", kept_counts(kept)))
            except UnreadableJobError:
                if (job := await self.get(job_id)) is not None:  # which sets it aside
                    jobs.append(job)
        return jobs

    async def _set_aside(
        self,
        job_id: str,
        content: bytes,
        state: bytes | None,
        attempts: bytes | None,
        caller: bytes,
        key: bytes,
        error: UnreadableJobError,
    ) -> Job:
        caller_id = caller.decode(errors="replace")
        own_key = key.decode(errors="replace").removeprefix(idempotency_key(caller_id, "")) or None
        count = int(attempts) if attempts is not None and attempts.isdigit() else 0
        job = stand_in(job_id, caller_id, self.clock(), error, attempts=count, idempotency_key=own_key)
        self.unreadable += 1
        log.error("job %s cannot be read, and has failed: %s", job_id, error)
        await self._transition(job, (state or b"").decode(errors="replace"), "", unreadable=content)
        return job

    async def move(self, before: Job, after: Job, *, from_states: tuple[JobState, ...], part: str = "") -> bool:
        """Replace a job; False where it is in none of those states, or has been claimed again since `before`.

        `part` is the key of its audio. Raises StoreFullError if there is no room for that.
        """
        return await self._transition(after, " ".join(from_states), before.attempts, part=part)

    async def _transition(
        self, after: Job, from_states: str, attempts: int | str, *, part: str = "", unreadable: bytes = b""
    ) -> bool:
        moved, *full = await self._transition_script(
            *(after.id, from_states, attempts),
            *(after.state.value, after.attempts, after.to_json()),
            *(after.due, after.finished or 0, self.lease_milliseconds),
            *(part, after.size, "" if after.webhook_due is None else after.webhook_due, unreadable),
            *(after.segmentation, after.expected_size, *self.limits.enforced_audio_bytes),
        )
        if full:
            raise store_full(full)
        return bool(moved)


def store_full(answer: Sequence[bytes | int]) -> StoreFullError:
    """The error for a script's answer that there is no room."""
    audio, own, used, limit, needed = map(int, answer)
    return StoreFullError(used, limit, needed, audio=bool(audio), own=bool(own))


def kept_counts(fields: Sequence[bytes | None]) -> KeptCounts:
    """The values of the fields KEPT."""
    return KeptCounts(*(int(field or 0) for field in fields))


async def _contents(job_ids: Collection[str], redis: Any) -> list[list[bytes | None]]:
    """The content and the state of each of these jobs, and its fields KEPT; None where there is none."""
    pipeline = redis.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.hmget(f"{JOB}{job_id}", "content", "state", *KEPT)
    found: list[list[bytes | None]] = await pipeline.execute()
    return found
