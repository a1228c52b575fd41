"""The limit on connections, with real servers: who gives way, and who is refused."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from balancer.access.trusted_proxies import TrustedProxies
from balancer.http import connections
from balancer.http.connections import CHECKED_PER_TURN, MAX_CONNECTIONS, Connections, derived_maximum, share_of
from balancer.http.protocol import HttpProtocol
from balancer.metrics import Metrics
from balancer.settings.http import HttpSettings
from tests.support.harness import serve_stub
from tests.support.raw_http import READY, TTS, RawConnection, ask, connect, with_body


@contextmanager
def descriptors(number: int) -> Iterator[None]:
    """Processes that the block starts may open this many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answered(connection: RawConnection) -> bool:
    connection.send(READY + b"\r\n")
    return connection.response().status == 200


def test_above_the_maximum_the_one_that_waits_longest_gives_way() -> None:
    with serve_stub(max_connections=6, max_connections_per_address=100) as server, ExitStack() as stack:
        server.client.close()
        silent = [stack.enter_context(connect(server.url)) for _ in range(3)]
        used = [stack.enter_context(connect(server.url)) for _ in range(3)]
        assert all(answered(connection) for connection in used)
        others = [stack.enter_context(connect(server.url)) for _ in range(4)]
        assert all(answered(connection) for connection in others)
        assert all(connection.is_closed() for connection in [*silent, used[0]])
        assert all(answered(connection) for connection in used[1:])


def test_where_all_are_busy_a_new_one_is_refused() -> None:
    with serve_stub(max_connections=4, max_connections_per_address=100) as server, ExitStack() as stack:
        server.client.close()
        for connection in [stack.enter_context(connect(server.url)) for _ in range(4)]:
            connection.send(TTS + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
            assert connection.response().status == 100  # the request runs
        refused = ask(server.url, READY + b"\r\n")
        assert (refused.status, refused.code) == (503, "too_many_connections")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"


def test_an_address_has_a_share() -> None:
    with serve_stub(max_connections=100, max_connections_per_address=3) as server, ExitStack() as stack:
        server.client.close()
        first = [stack.enter_context(connect(server.url, source="127.0.0.2")) for _ in range(3)]
        assert all(answered(connection) for connection in first)
        with connect(server.url, source="127.0.0.2") as connection:
            assert connection.response().code == "too_many_connections"
        with connect(server.url, source="127.0.0.3") as connection:
            assert answered(connection)
        assert all(answered(connection) for connection in first)


def test_a_trusted_proxy_has_no_share() -> None:
    with (
        serve_stub(max_connections_per_address=1, trusted_proxies="127.0.0.0/8") as server,
        connect(server.url) as one,
        connect(server.url) as other,
    ):
        assert answered(one)
        assert answered(other)


def test_silent_connections_beyond_the_descriptors_stop_nobody() -> None:
    with ExitStack() as stack:
        with descriptors(256):
            server = stack.enter_context(serve_stub(max_connections_per_address=1000))
        for _ in range(400):
            stack.enter_context(connect(server.url))
        assert ask(server.url, READY + b"\r\n").status == 200
        assert ask(server.url, with_body(TTS)).status == 200
        assert "ERROR" not in server.log.read_text()
        assert "CRITICAL" not in server.log.read_text()


@pytest.mark.parametrize(
    ("descriptors", "workers", "maximum"),
    [
        (1024, 2, (1024 - 160 - 16) // 2),
        (1024, 64, (1024 - 160 - 512) // 2),
        (100, 2, 1),
        (1_048_576, 2, MAX_CONNECTIONS),
        (resource.RLIM_INFINITY, 2, MAX_CONNECTIONS),
    ],
)
def test_the_maximum_follows_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, workers: int, maximum: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert derived_maximum(workers) == maximum


@pytest.mark.parametrize(
    ("address", "share"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("::1", "::/64"), ("", "")],
)
def test_a_share_is_that_of_an_address_or_of_a_sites_network(address: str, share: str) -> None:
    assert share_of(address) == share


async def test_when_connections_are_to_close_every_response_says_so() -> None:
    running, may_end = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            running.set()
            await may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def ask(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return (await reader.readuntil(b"\r\n\r\n")).decode()

    connections = Connections(HttpSettings(), Metrics("hibari"), TrustedProxies(None))
    config = uvicorn.Config(app, log_config=None)
    config.load()
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(connections, config, state, {}), "127.0.0.1", 0
    )
    async with listener:
        address = listener.sockets[0].getsockname()
        idle, busy = await asyncio.open_connection(*address), await asyncio.open_connection(*address)
        assert "connection: close" not in await ask("/", *idle)
        slow = asyncio.create_task(ask("/slow", *busy))
        await running.wait()
        connections.close_after_responses()
        may_end.set()
        for head, (reader, writer) in ((await slow, busy), (await ask("/", *idle), idle)):
            assert "connection: close" in head
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


class Overdue:
    """A connection that is overdue; its end is written down."""

    address = ""
    next_check = 0.0

    def __init__(self, ended: list[Overdue]) -> None:
        self._ended = ended

    def close_after_response(self) -> None: ...

    def can_give_way(self) -> bool:
        return False

    def give_way(self) -> None: ...

    def refuse_place(self) -> None: ...

    def end_if_overdue(self, now: float) -> None:
        assert now
        self._ended.append(self)


async def test_a_turn_of_the_event_loop_ends_a_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_INTERVAL_SECONDS", 0.0)
    opened, ended = Connections(HttpSettings(), Metrics("hibari"), TrustedProxies(None)), list[Overdue]()
    for _ in range(100):
        opened.add(Overdue(ended))
    monkeypatch.setattr(connections, "SWEEP_INTERVAL_SECONDS", 3600.0)
    seen = 0
    while len(ended) < 100:
        await asyncio.sleep(0)
        assert len(ended) <= seen + CHECKED_PER_TURN
        seen = len(ended)
