"""The webhooks of jobs in Redis that are still to be delivered."""

from __future__ import annotations

import json
from collections.abc import Callable

from balancer.jobs.job import Job
from balancer.jobs.redis.records import JobRecords
from balancer.jobs.store import ANY_ROOM, MAX_WEBHOOK_DUE_SECONDS, DeliveryRoom

LEASE_SECONDS = 60.0
"""A host that has claimed a webhook and recorded no attempt for so long is taken for dead."""


class RedisOutbox:
    """See WebhookOutbox."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records
        self._claim_script = records.load("claim_webhooks")
        self._record_attempt_script = records.load("record_webhook_attempt")

    async def due(self, now: float, room: DeliveryRoom = ANY_ROOM) -> list[Job]:
        """See WebhookOutbox. No other host gets them for LEASE_SECONDS."""
        receivers: dict[str, dict[str, int]] = {}
        for (caller, url), count in room.receivers.items():
            receivers.setdefault(caller, {})[url] = count
        ids = await self._claim_script(
            *(now, now + MAX_WEBHOOK_DUE_SECONDS, now + LEASE_SECONDS),
            *(room.total, room.per_caller, room.per_receiver),
            json.dumps(dict(room.callers)),
            json.dumps(receivers),
            json.dumps(dict.fromkeys(room.running, True)),
        )
        jobs = await self._records.read([id_.decode() for id_ in ids])
        return [job for job in jobs if job.webhook is not None]

    async def postpone(self, job: Job, *, due: float) -> None:
        """See WebhookOutbox."""
        await self._record(job, lambda current: current.with_webhook_due(due))

    async def record_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """See WebhookOutbox."""
        await self._record(job, lambda current: current.after_webhook_attempt(due=due, error=error))

    async def _record(self, job: Job, change: Callable[[Job], Job]) -> None:
        current = await self._records.get(job.id)
        if current is not None:
            after = change(current)
            due = "" if after.webhook_due is None else after.webhook_due
            await self._record_attempt_script(job.id, after.to_json(), due)
