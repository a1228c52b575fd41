"""Delivers webhooks: signed notifications of ended jobs to clients' servers, repeated until the server answers 2xx.

The signature follows Standard Webhooks (https://www.standardwebhooks.com): headers `webhook-id`, `webhook-timestamp`
and `webhook-signature`, which libraries of many languages verify. The id is the same for every attempt, so that a
receiver can recognise a repeated notification.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import UTC, datetime

import httpcore
from standardwebhooks.webhooks import Webhook

from balancer.jobs.job import Job
from balancer.jobs.public_network import PublicNetwork
from balancer.jobs.report import JobReport
from balancer.jobs.store import JobStore, JobStoreError
from balancer.metrics import Metrics

log = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 0.5
"""Pause between two polls of the store for due webhooks."""
TIMEOUT_SECONDS = 10.0
"""Time limit of one delivery."""
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Pauses before the second and every further attempt; after the last attempt the delivery is given up."""
MAX_CONCURRENT_DELIVERIES = 20

_DELIVERY_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


class Webhooks:
    """Delivers the webhooks that the store reports as due.

    `secret` is the signing key in base64, with or without the prefix `whsec_`; `allow_private` permits receivers in
    private networks.
    """

    def __init__(self, store: JobStore, metrics: Metrics, secret: str, *, allow_private: bool = False) -> None:
        self._store = store
        self._metrics = metrics
        self._signer = Webhook(secret)
        self._allow_private = allow_private
        self._deliveries = asyncio.Semaphore(MAX_CONCURRENT_DELIVERIES)

    async def run(self) -> None:
        """Deliver webhooks until cancelled."""
        network = PublicNetwork(allow_private=self._allow_private)
        async with httpcore.AsyncConnectionPool(network_backend=network, max_keepalive_connections=0) as http:
            while True:
                try:
                    due = await self._store.webhooks_due(time.time())
                    await asyncio.gather(*(self._deliver(http, job) for job in due))
                except JobStoreError as error:
                    log.debug("webhooks cannot be read: %s", error)
                await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _deliver(self, http: httpcore.AsyncConnectionPool, job: Job) -> None:
        async with self._deliveries:
            error = await self._post(http, job)
        failures = job.webhook_attempts
        if error is None:
            self._metrics.record_webhook("delivered")
            await self._store.record_webhook_attempt(job, due=None, error=None)
        elif failures < len(RETRY_SECONDS):
            self._metrics.record_webhook("failed")
            await self._store.record_webhook_attempt(job, due=time.time() + RETRY_SECONDS[failures], error=error)
        else:
            self._metrics.record_webhook("given_up")
            log.error("the webhook of job %s is given up after %d attempts: %s", job.id, failures + 1, error)
            await self._store.record_webhook_attempt(job, due=None, error=error)

    async def _post(self, http: httpcore.AsyncConnectionPool, job: Job) -> str | None:
        """POST the notification; returns None if it was accepted, else the error.

        Redirects are not followed: they could lead into a private network.
        """
        now = datetime.now(UTC)
        report = JobReport.of(job, job.base_url).model_dump(mode="json", by_alias=True)
        notification = {"type": f"speech.{job.state.value}", "timestamp": now.isoformat(), "data": report}
        body = json.dumps(notification, separators=(",", ":"))
        message_id = f"msg_{job.id}"
        headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "User-Agent": "Chorus",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message_id, now, body),
        }
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                response = await http.request(
                    "POST", job.webhook or "", headers=headers, content=body.encode(), extensions={"timeout": timeouts}
                )
        except (*_DELIVERY_ERRORS, TimeoutError, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None if 200 <= response.status < 300 else f"the receiver answered {response.status}"
