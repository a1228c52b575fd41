"""Sends one signed webhook over a connection of its own, within limits of time and size.

The signature follows Standard Webhooks (https://www.standardwebhooks.com): headers `webhook-id`, `webhook-timestamp`
and `webhook-signature`, which libraries of many languages verify. The id is the same for every attempt, so that a
receiver can recognise a repeated notification.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import httpcore
from standardwebhooks.webhooks import Webhook

from balancer.jobs.job import Job
from balancer.jobs.public_network import LocalFaultError, PublicNetwork, ReceiverRules
from balancer.jobs.report import JobReport

TIMEOUT_SECONDS = 10.0
"""Time limit of one delivery, from the lookup of the name to the status of the answer."""

_DELIVERY_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


class NotSentError(Exception):
    """The notification was not sent, for a reason that lies in this host: it is not the receiver's failure."""


class WebhookClient:
    """Signs with `secret`, the key in base64 with or without the prefix `whsec_`; `rules` say what receivers may be."""

    def __init__(self, secret: str, rules: ReceiverRules) -> None:
        self._signer = Webhook(secret)
        self._rules = rules
        # Loading the certificates takes milliseconds, so it is done once.
        self._tls = httpcore.default_ssl_context()

    async def send(self, job: Job) -> str | None:
        """POST the notification; returns None if it was accepted, else the error. Raises NotSentError.

        Redirects are not followed: they could lead into a private network. The body of the answer is not read.
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
        network = PublicNetwork(self._rules)
        error = await self._attempt(network, job.webhook or "", headers, body.encode())
        await network.lookup_ended()  # the thread of a slow lookup counts as part of the delivery
        return error

    async def _attempt(
        self, network: PublicNetwork, url: str, headers: dict[bytes | str, bytes | str], body: bytes
    ) -> str | None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status = await self._post(network, url, headers, body)
        except LocalFaultError as error:
            raise NotSentError(str(error)) from error
        except TimeoutError:
            return f"the receiver did not answer within {TIMEOUT_SECONDS:g} s"
        except (*_DELIVERY_ERRORS, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None if 200 <= status < 300 else f"the receiver answered {status}"

    async def _post(
        self, network: PublicNetwork, url: str, headers: dict[bytes | str, bytes | str], body: bytes
    ) -> int:
        """The status of the answer. The connection is this attempt's alone, so cancelling leaves nothing behind."""
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
        async with (
            httpcore.AsyncConnectionPool(self._tls, max_connections=1, network_backend=network) as connection,
            connection.stream("POST", url, headers=headers, content=body, extensions={"timeout": timeouts}) as answer,
        ):
            return answer.status
