"""Deletes jobs of a folder that ended long ago, and the oldest ones where their audio takes up too much."""

from __future__ import annotations

import sqlite3

from balancer.jobs.sqlite.job_folder import JobFolder
from balancer.jobs.sqlite.job_table import usage

PURGED_AT_ONCE = 1000


class SqliteRetention:
    """See JobRetention."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder

    async def audio_bytes(self) -> int:
        """See JobRetention."""

        def size() -> int:
            with self._folder.transaction() as database:
                return usage(database).audio_bytes

        return await self._folder.run(size)

    async def purge(self, before: float) -> int:
        """See JobRetention."""

        def delete() -> int:
            with self._folder.transaction() as database:
                where = "WHERE finished < ? AND webhook_due IS NULL LIMIT ?"
                old = self._folder.table.select(database, where, before, PURGED_AT_ONCE)
                self._folder.delete(database, old)
                return len(old)

        return await self._folder.run(delete)

    async def evict(self) -> int:
        """See JobRetention. Of a caller above its share the oldest of its own; jobs with webhooks to deliver last."""
        return await self._folder.run(self._evict) if self._folder.limits.evicts else 0

    def _evict(self) -> int:
        limits, deleted = self._folder.limits, 0
        with self._folder.transaction() as database:
            above = database.execute("SELECT caller FROM callers WHERE size > ?", (limits.caller_audio_bytes,))
            for (caller,) in above.fetchall():
                while usage(database, caller).caller_audio_bytes > limits.caller_audio_bytes:
                    if not self._delete_oldest(database, "caller = ? AND", caller):
                        break
                    deleted += 1
            while usage(database).audio_bytes > limits.audio_bytes:
                if not self._delete_oldest(database, ""):
                    break
                deleted += 1
        return deleted

    def _delete_oldest(self, database: sqlite3.Connection, condition: str, *values: object) -> int:
        """Delete the oldest finished job with audio, one whose webhook was delivered if there is any."""
        order = "ORDER BY webhook_due IS NOT NULL, finished LIMIT 1"
        where = f"WHERE {condition} state = 'done' AND size > 0 {order}"
        found = self._folder.table.select(database, where, *values)
        self._folder.delete(database, found)
        return len(found)
