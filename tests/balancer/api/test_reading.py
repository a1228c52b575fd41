"""Bodies: the memory that they take while they are received. Clients that leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from balancer.api.reading import CLIENT_WATCH, LINE_BYTES, PARSED_BYTES, JsonLinesReader, WhileConnected, read_json
from balancer.api.responses import ClientGoneError
from balancer.audio.held_audio import Budget
from balancer.errors import MemoryFullError, QueueFullError
from balancer.requests.bodies import TtsBody
from balancer.runtime.thread_pool import MAX_WAITING
from balancer.settings.base import MIB
from tests.support.harness import Server, serve_stub, wait_until
from tests.support.raw_http import TTS, ask, connect, with_body

BATCH = (
    b"POST /queue/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n"
)
HELD = b'{"text": "Hi."}' + b" " * MIB
"""A part of a batch: more than half of what one caller may hold."""


def taken(server: Server) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("chorus_audio_memory_bytes "))


def test_one_caller_holds_its_share_of_the_memory_with_bodies() -> None:
    with serve_stub(memory_mib=384 + 64, memory_caller_percent=2) as server:
        with connect(server.url, source="127.0.0.2") as slow:
            slow.send(BATCH % (2 * len(HELD)) + HELD)
            wait_until(lambda: taken(server) >= len(HELD))
            with connect(server.url, source="127.0.0.2") as second:
                second.send(BATCH % len(HELD) + HELD)
                refused = second.response()
            assert (refused.status, refused.code) == (503, "memory_full")
            assert int(refused.headers["retry-after"]) >= 1
            with connect(server.url, source="127.0.0.3") as other:
                other.send(BATCH % len(HELD) + HELD)
                assert other.response().status == 202
        wait_until(lambda: not taken(server))
        assert ask(server.url, with_body(TTS)).status == 200


async def test_a_body_that_fails_at_its_beginning_has_no_memory_to_give_back() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    headers, client = [(b"content-type", b"application/json")], ("192.0.2.1", 1)
    request = Request({"type": "http", "headers": headers, "client": client, "state": {}}, receive)
    memory = Budget(100, 1.0)
    with pytest.raises(ClientDisconnect):
        await read_json(request, TtsBody, 100, memory)
    assert not memory.taken


async def test_past_the_limit_of_waiting_batches_one_is_refused() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"text":"a"}\n', "more_body": False}

    headers, client = [(b"content-type", b"application/x-ndjson")], ("192.0.2.1", 1)
    request = Request({"type": "http", "headers": headers, "client": client, "state": {}}, receive)
    memory = Budget(MIB, 1.0)
    reader = JsonLinesReader(memory, max_bytes=MIB, max_lines=1000)
    busy = threading.Event()
    begun = [asyncio.create_task(reader.run(busy.wait)) for _ in range(MAX_WAITING + 1)]
    await asyncio.sleep(0)  # each has begun
    with pytest.raises(QueueFullError) as refused:
        async with reader.read(request, TtsBody):
            pass
    assert refused.value.message == "too many batches are being read; try again later"
    assert refused.value.retry_after
    assert not memory.taken
    receipts = asyncio.create_task(reader.run(lambda: "receipts"))
    await asyncio.sleep(0)
    busy.set()
    assert await receipts == "receipts", "what is accepted gets its answer all the same"
    assert all(await asyncio.gather(*begun))
    reader.close()


async def test_the_lines_of_a_batch_are_counted_with_what_is_made_of_them() -> None:
    body = b'{"text":"a"}\n' * 100

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers, client = [(b"content-type", b"application/x-ndjson")], ("192.0.2.1", 1)
    request = Request({"type": "http", "headers": headers, "client": client, "state": {}}, receive)
    memory = Budget(2 * (100 * LINE_BYTES + PARSED_BYTES * len(body)), 1.0)
    reader = JsonLinesReader(memory, max_bytes=MIB, max_lines=1000)
    async with reader.read(request, TtsBody) as bodies:
        assert len(bodies) == 100
        assert memory.taken > 100 * LINE_BYTES
    assert not memory.taken
    memory.take("another", memory.limit // 2 + 10)
    with pytest.raises(MemoryFullError):
        async with reader.read(Request(request.scope, receive), TtsBody):
            pass
    reader.close()


async def test_batches_leave_half_of_the_memory_to_audio() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"text":"a"}\n' * 30, "more_body": False}

    def request(caller: str) -> Request:
        headers = [(b"content-type", b"application/x-ndjson")]
        return Request({"type": "http", "headers": headers, "client": (caller, 1), "state": {}}, receive)

    memory = Budget(100 * LINE_BYTES, 1.0)
    reader = JsonLinesReader(memory, max_bytes=MIB, max_lines=1000)
    async with reader.read(request("192.0.2.1"), TtsBody):
        with pytest.raises(MemoryFullError):
            async with reader.read(request("192.0.2.2"), TtsBody):
                pass
        assert memory.take("192.0.2.2", 50 * LINE_BYTES)
        memory.release("192.0.2.2", 50 * LINE_BYTES)
    async with reader.read(request("192.0.2.2"), TtsBody):
        pass
    assert not memory.taken
    reader.close()


class Client:
    """A client as the server tells of it."""

    def __init__(self, *, gone: bool = False) -> None:
        self.gone = gone
        self.on_gone: Callable[[], None] | None = None

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        self.on_gone = on_gone
        if self.gone and on_gone is not None:
            on_gone()

    def leave(self) -> None:
        assert self.on_gone is not None
        self.on_gone()


def request_of(client: Client) -> Request:
    return Request({"type": "http", "extensions": {CLIENT_WATCH: lambda: client}})


async def fail_with(client: Client) -> None:
    async with WhileConnected(request_of(client)):
        raise KeyError


async def wait_for(client: Client) -> None:
    async with WhileConnected(request_of(client)):
        await asyncio.Event().wait()


async def test_a_block_ends_when_the_client_leaves() -> None:
    client = Client()
    waiting = asyncio.create_task(wait_for(client))
    await asyncio.sleep(0)
    client.leave()
    with pytest.raises(ClientGoneError):
        await waiting
    assert client.on_gone is None


async def test_a_block_does_not_run_on_for_a_client_that_has_left() -> None:
    with pytest.raises(ClientGoneError):
        await wait_for(Client(gone=True))


async def test_a_block_ends_by_itself_or_with_its_exception() -> None:
    client = Client()
    async with WhileConnected(request_of(client)):
        assert client.on_gone is not None
    assert client.on_gone is None
    with pytest.raises(KeyError):
        await fail_with(client)
    assert client.on_gone is None


async def test_another_cancellation_stays_one() -> None:
    waiting = asyncio.create_task(wait_for(Client()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
