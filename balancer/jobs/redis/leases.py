"""The leases of this host's claims, renewed for as long as it holds any."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from balancer.jobs.job import Job
from balancer.jobs.redis.records import JobRecords
from balancer.jobs.store import JobStoreError


class Leases:
    """Renews each claim several times in the `seconds` of a lease."""

    def __init__(self, records: JobRecords, seconds: float) -> None:
        self._records = records
        self._seconds = seconds
        self._renew_script = records.load("renew")
        self._claims: set[tuple[str, int]] = set()
        """The claims that this host holds, by job id and attempt."""
        self._renewal: asyncio.Task[None] | None = None

    def add(self, claimed: Job) -> None:
        """Renew the claim of a job from now on."""
        self._claims.add((claimed.id, claimed.attempts))
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())

    def discard(self, claimed: Job) -> None:
        """Renew the claim of a job no longer."""
        self._claims.discard((claimed.id, claimed.attempts))

    async def _renew(self) -> None:
        """Renew every claim of this host, for as long as there are any."""
        while self._claims:
            await asyncio.sleep(self._seconds / 4)
            with suppress(JobStoreError):
                claims = [str(part) for claim in self._claims for part in claim]
                await self._renew_script(self._records.lease_milliseconds, *claims)

    async def aclose(self) -> None:
        """Renew no claim any more."""
        self._claims.clear()  # ends the renewal even where redis-py takes its cancellation for a timeout
        if self._renewal is not None:
            self._renewal.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewal
