"""Webhooks: delivery to a real receiver, with and without the balancer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs import webhooks
from balancer.jobs.job import Job, JobState
from balancer.jobs.public_network import ReceiverRules
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import JobResult
from balancer.jobs.webhook_client import WebhookClient
from balancer.jobs.webhooks import Webhooks
from balancer.metrics import Metrics
from tests.support.harness import TIMEOUT, serve_stub, until, wait_until
from tests.support.webhook_receiver import WebhookReceiver, start_webhook_receiver

SECRET = "whsec_" + "A" * 32


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with start_webhook_receiver() as running:
        yield running


@asynccontextmanager
async def delivering(folder: Path, *, allow_private: bool = True) -> AsyncIterator[SqliteJobStore]:
    store = SqliteJobStore(folder)
    delivery = asyncio.create_task(
        Webhooks(store.outbox, Metrics("hibari"), WebhookClient(SECRET, ReceiverRules(allow_private))).run()
    )
    yield store
    delivery.cancel()
    with suppress(asyncio.CancelledError):
        await delivery
    await store.aclose()


async def done(store: SqliteJobStore, url: str) -> None:
    await store.add([Job(id="one", caller="c", body={}, characters=1, created=0.0, format="wav", webhook=url)])
    claimed = await store.claims.claim_next()
    assert claimed is not None
    assert await store.claims.finish(claimed, JobResult(MemoryBuffer(b"audio"), 1.0, "digest"))


async def test_a_webhook_is_signed_and_delivered_once(receiver: WebhookReceiver, tmp_path: Path) -> None:
    async with delivering(tmp_path) as store:
        await done(store, receiver.url)
        await until(lambda: receiver.received)
        ((headers, body),) = receiver.received
        content = Webhook(SECRET).verify(body, headers)
        assert content["type"] == "speech.done"
        assert (content["data"]["requestId"], content["data"]["ready"]) == ("one", True)
        assert headers["webhook-id"] == "msg_one"
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"one", b"two"), headers)
        async with asyncio.timeout(TIMEOUT):
            while (job := await store.get("one")) is None or job.webhook_due is not None:
                await asyncio.sleep(0.01)
        assert job.webhook_attempts == 1
        await asyncio.sleep(2 * webhooks.POLL_INTERVAL_SECONDS)
        assert len(receiver.received) == 1


async def test_delivery_is_repeated_until_the_receiver_accepts_it(
    receiver: WebhookReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "RETRY_SECONDS", (0.01, 0.01, 0.01))
    receiver.answers = [500, 302]
    async with delivering(tmp_path) as store:
        await done(store, receiver.url)
        await until(lambda: len(receiver.received) == 3)
        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
        assert {json.loads(body)["data"]["state"] for _, body in receiver.received} == {JobState.DONE}


async def test_delivery_is_given_up_after_the_last_attempt(
    receiver: WebhookReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "RETRY_SECONDS", (0.01,))
    receiver.answers = [500] * 10
    async with delivering(tmp_path) as store:
        await done(store, receiver.url)
        while (job := await store.get("one")) is None or job.webhook_due is not None:
            await asyncio.sleep(0.01)
        assert (len(receiver.received), job.webhook_attempts, job.webhook_error) == (2, 2, "the receiver answered 500")


async def test_a_private_address_is_never_connected_to(receiver: WebhookReceiver, tmp_path: Path) -> None:
    async with delivering(tmp_path, allow_private=False) as store:
        await done(store, receiver.url)
        while (job := await store.get("one")) is None or job.webhook_error is None:
            await asyncio.sleep(0.01)
        assert "not a public address" in job.webhook_error
        assert receiver.received == []


def test_the_end_of_a_job_is_delivered_over_http(receiver: WebhookReceiver) -> None:
    with serve_stub(webhook_secret=SECRET, webhook_private=True) as server:
        body = {"text": "Hello.", "webhook": receiver.url, "userId": "u1"}
        job = server.client.post("/queue", json=body).json()
        wait_until(lambda: bool(receiver.received))
        content = json.loads(receiver.received[0][1])
        assert content["data"]["requestId"] == job["requestId"]
        assert content["data"]["userId"] == "u1"
        assert server.client.get(content["data"]["audioUrl"]).status_code == 200
        server.client.post("/queue", json=body | {"text": "unspeakable"})
        wait_until(lambda: len(receiver.received) == 2)
        assert json.loads(receiver.received[1][1])["type"] == "speech.failed"


def test_urls_in_a_webhook_are_those_of_the_address_the_job_was_queued_at(receiver: WebhookReceiver) -> None:
    with serve_stub(
        webhook_secret=SECRET, webhook_private=True, allowed_hosts="queued.example.org,asked.example.org"
    ) as server:
        body = {"text": "Hello.", "webhook": receiver.url}
        job = server.client.post("/queue", json=body, headers={"Host": "queued.example.org"}).json()
        server.client.get(f"/status/{job['requestId']}", headers={"Host": "asked.example.org"})
        wait_until(lambda: bool(receiver.received))
        data = json.loads(receiver.received[0][1])["data"]
        assert data["statusUrl"] == f"http://queued.example.org/status/{job['requestId']}"
        assert data["audioUrl"] == f"http://queued.example.org/audio/{job['requestId']}"


def test_private_webhooks_are_refused_at_once() -> None:
    with serve_stub(webhook_secret=SECRET) as server:
        answer = server.client.post("/queue", json={"text": "Hello.", "webhook": "http://10.0.0.1/"})
        assert answer.status_code == 400
        assert "public address" in answer.json()["error"]["message"]
