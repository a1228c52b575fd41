"""Tells clients' own servers what became of their jobs: signed, and again until one has answered that it heard.

The signature is that of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id`, `webhook-timestamp` and
`webhook-signature`, which libraries of many languages verify. The id is the same at each try, so that a receiver can
tell a second from a new one.
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
from balancer.jobs.service import report
from balancer.jobs.store import JobStore, JobStoreError
from balancer.metrics import Metrics

log = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 0.5
TIMEOUT_SECONDS = 10.0
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Between tries; after the last one it is given up."""
MAX_CONCURRENT_DELIVERIES = 20

_FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


class Webhooks:
    """Delivers what the store says is due. `secret` signs, in base64, perhaps behind `whsec_`."""

    def __init__(self, store: JobStore, metrics: Metrics, secret: str, *, allow_private: bool = False) -> None:
        self._store = store
        self._metrics = metrics
        self._signer = Webhook(secret)
        self._allow_private = allow_private
        self._deliveries = asyncio.Semaphore(MAX_CONCURRENT_DELIVERIES)

    async def run(self) -> None:
        """Deliver, until cancelled."""
        network = PublicNetwork(allow_private=self._allow_private)
        async with httpcore.AsyncConnectionPool(network_backend=network, max_keepalive_connections=0) as http:
            while True:
                try:
                    due = await self._store.webhooks_due(time.time())
                    await asyncio.gather(*(self._deliver(http, job) for job in due))
                except JobStoreError as error:
                    log.debug("no webhooks: %s", error)
                await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _deliver(self, http: httpcore.AsyncConnectionPool, job: Job) -> None:
        async with self._deliveries:
            problem = await self._post(http, job)
        tried = job.webhook_attempts
        if problem is None:
            self._metrics.record_webhook("delivered")
            await self._store.record_webhook_attempt(job, due=None, error=None)
        elif tried < len(RETRY_SECONDS):
            self._metrics.record_webhook("failed")
            await self._store.record_webhook_attempt(job, due=time.time() + RETRY_SECONDS[tried], error=problem)
        else:
            self._metrics.record_webhook("given_up")
            log.error("the webhook of job %s is given up after %d tries: %s", job.id, tried + 1, problem)
            await self._store.record_webhook_attempt(job, due=None, error=problem)

    async def _post(self, http: httpcore.AsyncConnectionPool, job: Job) -> str | None:
        """Why it was not heard; None where it was. Redirects are not followed: they could lead anywhere."""
        now = datetime.now(UTC)
        content = {"type": f"speech.{job.state.value}", "timestamp": now.isoformat(), "data": report(job)}
        body = json.dumps(content, separators=(",", ":"))
        message = f"msg_{job.id}"
        headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "User-Agent": "Chorus",
            "webhook-id": message,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message, now, body),
        }
        limits = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await http.request(
                    "POST", job.webhook or "", headers=headers, content=body.encode(), extensions={"timeout": limits}
                )
        except (*_FAILURES, TimeoutError, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None if 200 <= answer.status < 300 else f"it answered {answer.status}"
