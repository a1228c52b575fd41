"""Delivers webhooks: notifications of ended jobs to clients' servers, repeated until the server answers 2xx.

Deliveries run beside each other, within a limit for each caller and each receiver, so that slow receivers of one caller
delay no other caller's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from balancer.jobs.job import Job
from balancer.jobs.store import DeliveryRoom, JobStoreError, WebhookOutbox
from balancer.jobs.webhook_client import NotSentError, WebhookClient
from balancer.metrics import Metrics

log = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 0.5
"""Pause between two polls of the store for due webhooks."""
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Pauses before the second and every further attempt; after the last attempt the delivery is given up."""
NOT_SENT_RETRY_SECONDS = 5.0
"""Pause after an attempt that this host could not make; it does not count."""

MAX_DELIVERIES = 64
"""Deliveries that run at once; each has one connection, and one thread while its name is looked up."""
MAX_DELIVERIES_PER_CALLER = 16
MAX_DELIVERIES_PER_RECEIVER = 8
"""Deliveries of one caller to one URL."""


class Webhooks:
    """Delivers the webhooks of an outbox when they are due."""

    def __init__(self, outbox: WebhookOutbox, metrics: Metrics, client: WebhookClient) -> None:
        self._outbox = outbox
        self._metrics = metrics
        self._client = client
        self._running: dict[str, asyncio.Task[None]] = {}
        """Deliveries by the id of the job."""
        self._per_caller: Counter[str] = Counter()
        self._per_receiver: Counter[tuple[str, str]] = Counter()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Deliver webhooks until cancelled."""
        try:
            while True:
                self._wake.clear()
                started = await self._start_due()
                # A place that has become free is given away at once only where somebody may be waiting for one.
                await self._pause(wakes=started or len(self._running) >= MAX_DELIVERIES_PER_RECEIVER)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _start_due(self) -> bool:
        """Start the deliveries that are due and have room; whether there were any."""
        try:
            due = await self._outbox.due(time.time(), self._room())
        except JobStoreError as error:
            log.debug("webhooks cannot be read: %s", error)
            return False
        for job in due:
            self._start(job)
        return bool(due)

    def _room(self) -> DeliveryRoom:
        return DeliveryRoom(
            total=MAX_DELIVERIES - len(self._running),
            per_caller=MAX_DELIVERIES_PER_CALLER,
            per_receiver=MAX_DELIVERIES_PER_RECEIVER,
            running=frozenset(self._running),
            callers=dict(self._per_caller),
            receivers=dict(self._per_receiver),
        )

    def _start(self, job: Job) -> None:
        receiver = job.caller_id, job.webhook or ""
        self._per_caller[job.caller_id] += 1
        self._per_receiver[receiver] += 1
        self._running[job.id] = task = asyncio.create_task(self._deliver(job))

        def ended(_: asyncio.Task[None]) -> None:
            del self._running[job.id]
            self._per_caller -= Counter([job.caller_id])  # this form drops counts of 0
            self._per_receiver -= Counter([receiver])
            self._wake.set()

        task.add_done_callback(ended)

    async def _pause(self, *, wakes: bool) -> None:
        """Wait until the next poll, which comes sooner when a delivery ends and `wakes` is true."""
        if not wakes:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            return
        try:
            async with asyncio.timeout(POLL_INTERVAL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _deliver(self, job: Job) -> None:
        failures = job.webhook_attempts
        try:
            error = await self._client.send(job)
        except NotSentError as fault:
            log.warning("the webhook of job %s was not sent and is tried again: %s", job.id, fault)
            due = time.time() + NOT_SENT_RETRY_SECONDS
            await self._record(lambda: self._outbox.postpone(job, due=due))
            return
        except Exception:
            log.exception("the webhook of job %s: internal error", job.id)
            error = "internal error of the sender"
        if error is None:
            self._metrics.record_webhook("delivered")
            await self._record(lambda: self._outbox.record_attempt(job, due=None, error=None))
        elif failures < len(RETRY_SECONDS):
            self._metrics.record_webhook("failed")
            next_due = time.time() + RETRY_SECONDS[failures]
            await self._record(lambda: self._outbox.record_attempt(job, due=next_due, error=error))
        else:
            self._metrics.record_webhook("given_up")
            log.error("the webhook of job %s is given up after %d attempts: %s", job.id, failures + 1, error)
            await self._record(lambda: self._outbox.record_attempt(job, due=None, error=error))

    async def _record(self, change: Callable[[], Awaitable[None]]) -> None:
        """Record an outcome. Retried until the store answers: else the receiver would be called at each poll."""
        while True:
            try:
                await change()
            except JobStoreError as error:
                log.debug("the outcome of a webhook cannot be recorded: %s", error)
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
            else:
                return
