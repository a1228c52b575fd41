"""Jobs in Redis, for several hosts.

Redis must persist the jobs (`appendonly yes`) and must not evict them (`maxmemory-policy noeviction`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from balancer.jobs.job import Job, JobState
from balancer.jobs.limits import JobLimits
from balancer.jobs.redis.claims import RedisClaims
from balancer.jobs.redis.keys import COUNTS, FAILED, idempotency_key
from balancer.jobs.redis.leases import Leases
from balancer.jobs.redis.outbox import RedisOutbox
from balancer.jobs.redis.places import RedisPlaces
from balancer.jobs.redis.records import JobRecords, store_full
from balancer.jobs.redis.results import RedisResults
from balancer.jobs.redis.retention import RedisRetention
from balancer.jobs.redis.segments import RedisSegments
from balancer.jobs.redis.spool import Spool
from balancer.jobs.redis.takeover import Takeover
from balancer.jobs.store import NOTHING_AHEAD, IdempotencyError, QueuedAhead
from balancer.redis.client import RedisClient

LEASE_SECONDS = 15.0


class RedisJobStore:
    """A JobStore in Redis. `spool` is a folder of this host for audio on its way to clients; `clock` gives Unix time.

    A claim that is not renewed for `lease` seconds passes to another host.
    """

    max_result_bytes = 512 * 2**20
    """Redis's limit of a value."""

    def __init__(
        self,
        redis: RedisClient,
        spool: Path,
        *,
        lease: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
        limits: JobLimits | None = None,
    ) -> None:
        self._records = JobRecords(redis, lease, clock, limits or JobLimits())
        self._spool = Spool(spool)
        self._leases = Leases(self._records, lease)
        self._results = RedisResults(self._records, self._spool)
        takeover = Takeover(self._records)
        self.claims = RedisClaims(self._records, self._leases, self._results, self._spool, takeover)
        self.places = RedisPlaces(self._records)
        self.segments = RedisSegments(self._records, self._spool)
        self.outbox = RedisOutbox(self._records)
        self.retention = RedisRetention(self._records, self._spool, takeover)
        self._add_script = self._records.load("add")
        self._delete_script = self._records.load("delete")

    @property
    def unreadable(self) -> int:
        """See JobStore."""
        return self._records.unreadable

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """See JobStore."""
        caller, limits = jobs[0].caller_id, self._records.limits
        arguments: list[str | int] = [caller, limits.queued, limits.caller_queued, *limits.enforced_audio_bytes]
        for job in jobs:
            key = "" if job.idempotency_key is None else idempotency_key(caller, job.idempotency_key)
            concurrency = "" if job.concurrency is None else job.concurrency
            arguments += [job.id, key, job.request_digest, job.to_json(), job.characters, concurrency]
            arguments += [job.webhook or "", job.expected_size]
        kind, *answer = await self._add_script(*arguments)
        if kind == b"conflict":
            raise IdempotencyError
        if kind == b"full":
            raise store_full(answer)
        own_jobs = {job.id: job for job in jobs}
        added = [own_jobs.get(id_) or await self.get(id_) for id_ in (id_.decode() for id_ in answer)]
        return [job for job in added if job is not None]

    async def get(self, job_id: str) -> Job | None:
        """See JobStore."""
        return await self._records.get(job_id)

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """See JobStore."""
        jobs = await self._records.read(job_ids)
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        places = await self.places.ahead_all(queued) if queued else []
        ahead = dict(zip((job.id for job in queued), places, strict=True))
        return {job.id: (job, ahead.get(job.id, NOTHING_AHEAD)) for job in jobs}

    async def audio(self, job: Job) -> Path | None:
        """See JobStore."""
        return await self._results.file(job)

    async def counts(self) -> dict[JobState, int]:
        """See JobStore."""
        found = await self._records.execute(lambda redis: redis.hgetall(COUNTS))
        return {state: int(found.get(state.value.encode(), 0)) for state in JobState}

    async def failed(self, limit: int) -> list[Job]:
        """See JobStore."""
        ids = await self._records.execute(lambda redis: redis.zrevrange(FAILED, 0, limit - 1))
        return await self._records.read([id_.decode() for id_ in ids])

    async def requeue(self, job_id: str) -> Job | None:
        """See JobStore."""
        job = await self.get(job_id)
        if job is None:
            return None
        again = job.requeued()
        return again if await self._records.move(job, again, from_states=(JobState.FAILED,)) else None

    async def cancel(self, job_id: str) -> Job | None:
        """See JobStore."""
        while (job := await self.get(job_id)) is not None and not job.state.final:
            cancelled = job.cancelled(self._records.clock())
            if await self._records.move(job, cancelled, from_states=(JobState.QUEUED, JobState.RUNNING)):
                return cancelled
        return job

    async def delete(self, job_id: str) -> Job | None:
        """See JobStore."""
        job = await self.get(job_id)
        if job is not None and job.state.final and await self._delete_script(job_id):
            with suppress(OSError):
                await self._spool.run(lambda: self._spool.result(job).unlink(missing_ok=True))
        return job

    async def aclose(self) -> None:
        """See JobStore. Other hosts take over this host's claims after the lease. The Redis client stays open."""
        await self._leases.aclose()
        self._spool.close()
