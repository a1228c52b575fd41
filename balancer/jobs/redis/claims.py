"""Claims of the jobs in Redis.

A host with an idle worker claims the first job in the order of turns. While a job runs, its host renews its claim every
few seconds; when a claim has not been renewed for the time of a lease, the next host that asks takes the job over. Each
claim increments the job's attempts, and only the latest claim can end the job, so a host that was wrongly taken for
dead produces no second result. Leases are measured by the clock of Redis.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from contextlib import suppress

from balancer.jobs.job import Job, JobError, JobState
from balancer.jobs.limits import StoreFullError
from balancer.jobs.redis.leases import Leases
from balancer.jobs.redis.records import JobRecords
from balancer.jobs.redis.results import RedisResults
from balancer.jobs.redis.spool import Spool
from balancer.jobs.redis.takeover import Takeover
from balancer.jobs.store import LONG_CHARACTERS, MAX_DUE_SECONDS, JobResult

MAX_TRIES = 100
"""Jobs that one claim looks at: others may take them first, or they may have to be set aside."""


class RedisClaims:
    """See JobClaims."""

    def __init__(
        self, records: JobRecords, leases: Leases, results: RedisResults, spool: Spool, takeover: Takeover
    ) -> None:
        self._records = records
        self._leases = leases
        self._results = results
        self._spool = spool
        self._takeover = takeover
        self._sending = asyncio.Lock()
        self._pick_script = records.load("pick")

    async def claim_next(self, without_long_of: Collection[str] | None = ()) -> Job | None:
        """See JobClaims."""
        await self._takeover.ensure_done()
        limits = self._records.limits
        callers = json.dumps(None if without_long_of is None else dict.fromkeys(without_long_of, True))
        for _ in range(MAX_TRIES):
            now = self._records.clock()
            picked = await self._pick_script(
                now, now + MAX_DUE_SECONDS, *limits.enforced_audio_bytes, LONG_CHARACTERS, callers
            )
            if picked is None:
                return None
            job = await self._records.get(picked.decode())
            if job is None or job.state.final:
                continue
            running = job.claimed(now, limits.reserved(job.expected_size))
            moved = False
            with suppress(StoreFullError):  # another host has taken the room
                moved = await self._records.move(job, running, from_states=(JobState.QUEUED, JobState.RUNNING))
            if moved:
                self._leases.add(running)
                return running
        return None

    async def finish(self, job: Job, result: JobResult) -> bool:
        """See JobClaims."""
        done = job.done(self._records.clock(), seconds=result.seconds, digest=result.digest, size=len(result.audio))
        async with self._sending:  # the audio of one job at a time
            return await self._end(job, done, await self._results.send(job, result.audio))

    async def fail(self, job: Job, error: JobError) -> bool:
        """See JobClaims."""
        return await self._end(job, job.failed(self._records.clock(), error))

    async def retry_later(self, job: Job, error: JobError, due: float, *, counts: bool = True) -> bool:
        """See JobClaims."""
        return await self._end(job, job.queued_for_retry(error, due, counts=counts))

    async def release(self, job: Job) -> None:
        """See JobClaims."""
        await self._end(job, job.released())

    async def stop(self) -> None:
        """See JobClaims: any process may claim the jobs that this one has not claimed."""

    async def _end(self, claimed: Job, job: Job, part: str = "") -> bool:
        """Move a job out of its claim; False where the claim no longer holds. `part` is the key of its audio."""
        moved = await self._records.move(claimed, job, from_states=(JobState.RUNNING,), part=part)
        self._leases.discard(claimed)
        self._spool.drop_segments(claimed)
        return moved
