"""Takes over the jobs that an earlier version of the balancer has left in Redis."""

from __future__ import annotations

import logging

from balancer.jobs.redis.keys import EARLIER_KEYS
from balancer.jobs.redis.records import JobRecords

log = logging.getLogger(__name__)


class Takeover:
    """Takes over jobs of an earlier version."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records
        self._upgrade_script = records.load("upgrade")
        self._done = False

    async def ensure_done(self) -> None:
        """Take over the jobs that hosts of an earlier version have left, once."""
        if not self._done:
            await self.repeat()

    async def repeat(self) -> None:
        """Take over the jobs that hosts of an earlier version have left, or still add."""
        if await self._records.execute(lambda redis: redis.exists(*EARLIER_KEYS)):
            await self._upgrade_script(*EARLIER_KEYS, self._records.lease_milliseconds)
            log.warning("the jobs of an earlier version in Redis were taken over; its hosts no longer see them")
        self._done = True
