"""Receivers that are slow, endless or dead delay no other caller's webhooks."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from balancer.jobs import webhook_client, webhooks
from balancer.jobs.job import Job, JobState
from balancer.jobs.public_network import MAX_ANSWER_BYTES, ReceiverRules
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import DeliveryRoom
from balancer.jobs.webhook_client import NotSentError, WebhookClient
from balancer.jobs.webhooks import Webhooks
from balancer.metrics import Metrics
from tests.support.harness import TIMEOUT, until
from tests.support.jobs import RESULT, Opened, found, job

SECRET = "whsec_" + "A" * 32
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A server that gives every request the answer of the test, and counts them."""

    def __init__(self, answer: Answer) -> None:
        self.requests = 0
        self.url = ""
        self.connections: set[asyncio.StreamWriter] = set()
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self._answer(writer)
            await writer.drain()
        writer.close()
        self.connections.discard(writer)


@asynccontextmanager
async def receiving(answer: Answer) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield receiver
    finally:
        server.close()
        for connection in receiver.connections:
            connection.transport.abort()
        await asyncio.sleep(0)


async def accepts(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def never_answers(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(TIMEOUT)


async def answers_without_end(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
        await writer.drain()


@asynccontextmanager
async def delivering(folder: Path) -> AsyncIterator[SqliteJobStore]:
    store = SqliteJobStore(folder)
    client = WebhookClient(SECRET, ReceiverRules(allow_private=True))
    delivery = asyncio.create_task(Webhooks(store.outbox, Metrics("hibari"), client).run())
    yield store
    delivery.cancel()
    with suppress(asyncio.CancelledError):
        await delivery
    await store.aclose()


async def finish(store: SqliteJobStore, jobs: list[Job]) -> None:
    await store.add(jobs)
    for _ in jobs:
        await store.claims.finish(found(await store.claims.claim_next()), RESULT)


@pytest.mark.parametrize("slow_answer", [never_answers, answers_without_end])
async def test_receivers_of_one_caller_delay_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_answer: Answer
) -> None:
    monkeypatch.setattr(webhook_client, "TIMEOUT_SECONDS", TIMEOUT)
    async with receiving(slow_answer) as slow, receiving(accepts) as good, delivering(tmp_path) as store:
        many = [job(number, caller="many", webhook=f"{slow.url}{number}") for number in range(100)]
        await finish(store, many)
        await until(lambda: slow.requests >= webhooks.MAX_DELIVERIES_PER_CALLER)
        await finish(store, [job(1000, caller="few", webhook=good.url)])
        await until(lambda: good.requests == 1)


async def test_a_slow_receiver_delays_no_other_of_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_client, "TIMEOUT_SECONDS", TIMEOUT)
    async with receiving(never_answers) as slow, receiving(accepts) as good, delivering(tmp_path) as store:
        await finish(store, [job(number, webhook=slow.url) for number in range(50)])
        await until(lambda: slow.requests == webhooks.MAX_DELIVERIES_PER_RECEIVER)
        await finish(store, [job(1000, webhook=good.url)])
        await until(lambda: good.requests == 1)


async def test_deliveries_go_on_after_many_that_timed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_client, "TIMEOUT_SECONDS", 0.2)
    async with receiving(never_answers) as slow, receiving(accepts) as good, delivering(tmp_path) as store:
        await finish(store, [job(number, webhook=f"{slow.url}{number}") for number in range(40)])
        async with asyncio.timeout(TIMEOUT):
            while not (failed := found(await store.get("job-0"))).webhook_attempts:
                await asyncio.sleep(0.01)
            assert (failed.webhook_attempts, failed.webhook_error) == (1, "the receiver did not answer within 0.2 s")
            # On a busy machine an attempt may end before its receiver has seen it.
            while not all([found(await store.get(f"job-{number}")).webhook_attempts for number in range(40)]):
                await asyncio.sleep(0.01)
        await finish(store, [job(1000, webhook=good.url)])
        await until(lambda: good.requests == 1)


def ended(url: str) -> Job:
    return job(1, state=JobState.DONE, webhook=url, finished=1000.0)


async def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_client, "TIMEOUT_SECONDS", TIMEOUT)
    async with receiving(answers_without_end) as endless:
        error = await WebhookClient(SECRET, ReceiverRules(allow_private=True)).send(ended(endless.url))
    assert error == f"the answer is larger than {MAX_ANSWER_BYTES} bytes"


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        first = opened.enter_context(Path("/dev/null").open())
        resource.setrlimit(resource.RLIMIT_NOFILE, (first.fileno() + 20, hard))
        with suppress(OSError):
            while True:
                opened.enter_context(Path("/dev/null").open())
        yield


async def test_a_delivery_that_this_host_cannot_make_is_no_failure_of_the_receiver() -> None:
    client = WebhookClient(SECRET, ReceiverRules(allow_private=True))
    async with receiving(accepts) as good:
        with no_descriptors_left(), pytest.raises(NotSentError, match="Too many open files"):
            await client.send(ended(good.url))
        assert await client.send(ended(good.url)) is None


async def test_a_postponed_webhook_counts_no_attempt(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1, webhook="https://example.org/")])
        await store.claims.finish(found(await store.claims.claim_next()), RESULT)
        (due,) = await store.outbox.due(1000.0)
        await store.outbox.postpone(due, due=1005.0)
        assert await store.outbox.due(1000.0) == []
        (again,) = await store.outbox.due(1005.0)
        assert (again.webhook_attempts, again.webhook_error) == (0, None)


async def test_the_store_gives_webhooks_as_far_as_there_is_room(opened: Opened) -> None:
    def urls(due: list[Any]) -> list[tuple[str, str]]:
        return [(one.caller, one.webhook) for one in due]

    async with opened() as store:
        for caller, url, count in (("a", "http://x/", 5), ("a", "http://y/", 2), ("b", "http://x/", 2)):
            for number in range(count):
                id_ = f"{caller}{url[7]}{number}"
                await store.add([job(number, id=id_, caller=caller, webhook=url)])
                await store.claims.finish(found(await store.claims.claim_next()), RESULT)
        room = DeliveryRoom(total=5, per_caller=4, per_receiver=2, callers={"a": 1}, receivers={("a", "http://x/"): 1})
        due = urls(await store.outbox.due(2000.0, room))
        assert sorted(due) == [("a", "http://x/"), ("a", "http://y/"), ("a", "http://y/"), *[("b", "http://x/")] * 2]
        assert due[0][0] == "b", "of whom none is being delivered"
