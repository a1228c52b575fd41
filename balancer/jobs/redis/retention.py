"""Deletes jobs in Redis that ended long ago, and the oldest ones where their audio takes up too much."""

from __future__ import annotations

from balancer.jobs.redis.keys import COUNTS
from balancer.jobs.redis.records import JobRecords
from balancer.jobs.redis.spool import Spool
from balancer.jobs.redis.takeover import Takeover


class RedisRetention:
    """See JobRetention."""

    def __init__(self, records: JobRecords, spool: Spool, takeover: Takeover) -> None:
        self._records = records
        self._spool = spool
        self._takeover = takeover
        self._purge_script = records.load("purge")
        self._evict_script = records.load("evict")

    async def audio_bytes(self) -> int:
        """See JobRetention."""
        return int(await self._records.execute(lambda redis: redis.hget(COUNTS, "size")) or 0)

    async def purge(self, before: float) -> int:
        """See JobRetention."""
        await self._spool.delete_old()
        await self._takeover.repeat()
        deleted: int = await self._purge_script(before)
        return deleted

    async def evict(self) -> int:
        """See JobRetention."""
        limits = self._records.limits
        if not limits.evicts:
            return 0
        deleted: int = await self._evict_script(limits.audio_bytes, limits.caller_audio_bytes)
        return deleted
