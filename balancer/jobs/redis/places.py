"""The places of queued jobs in Redis, in the order in which they are claimed."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.jobs.job import Job
from balancer.jobs.redis.records import JobRecords
from balancer.jobs.store import QueuedAhead

MAX_COUNTED = 100
"""Queued jobs whose characters are summed one by one; where there are more, their average stands for the rest."""


class RedisPlaces:
    """See QueuePlaces."""

    def __init__(self, records: JobRecords) -> None:
        self._ahead_script = records.load("ahead")

    async def ahead(self, job: Job) -> QueuedAhead:
        """See QueuePlaces."""
        return (await self.ahead_all([job]))[0]

    async def ahead_all(self, jobs: Sequence[Job]) -> list[QueuedAhead]:
        """See QueuePlaces."""
        answer = await self._ahead_script(MAX_COUNTED, *(job.id for job in jobs))
        return [QueuedAhead(*pair) for pair in zip(answer[::2], answer[1::2], strict=True)]
