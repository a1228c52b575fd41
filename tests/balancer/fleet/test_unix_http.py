"""The client against servers whose bytes are written by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httptools
import pytest

from balancer.fleet.unix_http import UnixHttpClient
from tests.support.unix_server import unix_server

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass
class Response:
    statuses: list[int] = field(default_factory=list)
    body: bytes = b""

    def on_status(self, status: int) -> None:
        self.statuses.append(status)

    def on_data(self, data: bytes) -> None:
        self.body += data


@dataclass
class Server:
    path: Path
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def serving(folder: Path, *answers: bytes, close: bool = False) -> AsyncIterator[Server]:
    """A server that answers each request with the next of `answers`. After the last, it waits or closes (`close`)."""
    server = Server(folder / "s")
    remaining = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while remaining:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                server.requests.append(head + await reader.readexactly(length))
                writer.write(remaining.pop(0))
            if not close:
                await reader.read()
        finally:
            server.closed.set()

    async with unix_server(server.path, serve):
        yield server


async def send(http: UnixHttpClient, body: bytes = b"") -> Response:
    response = Response()
    async with asyncio.timeout(30):
        await http.request("POST", "/path", body, response)
    return response


async def test_a_request_and_its_response(run_dir: Path) -> None:
    async with serving(run_dir, HELLO) as server:
        http = UnixHttpClient(server.path)
        assert await send(http, b"data") == Response([200], b"hello")
        http.close()
    assert server.requests == [b"POST /path HTTP/1.1\r\nHost: worker\r\nContent-Length: 4\r\n\r\ndata"]


async def test_a_chunked_body(run_dir: Path) -> None:
    answer = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    async with serving(run_dir, answer) as server:
        http = UnixHttpClient(server.path)
        assert await send(http) == Response([429], b"hello")
        http.close()


async def test_connections_are_reused(run_dir: Path) -> None:
    async with serving(run_dir, *[HELLO] * 3) as server:
        http = UnixHttpClient(server.path)
        for _ in range(3):
            await send(http)
        http.close()
    assert server.connections == 1


async def test_concurrent_requests_have_their_own_connections(run_dir: Path) -> None:
    async with serving(run_dir, *[HELLO] * 3) as server:
        http = UnixHttpClient(server.path)
        await asyncio.gather(*[send(http) for _ in range(3)])
        http.close()
    assert server.connections == 3


async def test_a_connection_that_the_server_will_close_is_not_reused(run_dir: Path) -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with serving(run_dir, last, HELLO) as server:
        http = UnixHttpClient(server.path)
        await send(http)
        assert (await send(http)).body == b"hello"
        http.close()
    assert server.connections == 2


async def test_a_connection_that_was_closed_meanwhile_is_not_reused(run_dir: Path) -> None:
    async with serving(run_dir, HELLO, close=True) as server:
        http = UnixHttpClient(server.path)
        await send(http)
        await server.closed.wait()
        while http._idle[0].reusable:
            await asyncio.sleep(0)
    async with serving(run_dir, HELLO) as server:
        assert (await send(http)).body == b"hello"
        http.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", HELLO[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"]
)
async def test_an_incomplete_response(run_dir: Path, answer: bytes) -> None:
    async with serving(run_dir, answer, close=True) as server:
        http = UnixHttpClient(server.path)
        with pytest.raises(ConnectionError):
            await send(http)
        http.close()


async def test_a_response_that_is_not_http(run_dir: Path) -> None:
    async with serving(run_dir, b"SSH-2.0\r\n") as server:
        http = UnixHttpClient(server.path)
        with pytest.raises(httptools.HttpParserError):
            await send(http)
        await server.closed.wait()


async def test_an_exception_of_the_handler_ends_the_request(run_dir: Path) -> None:
    class Picky(Response):
        def on_data(self, data: bytes) -> None:
            raise KeyError(data.decode())

    async with serving(run_dir, HELLO) as server:
        http = UnixHttpClient(server.path)
        with pytest.raises(KeyError, match="hello"):
            await http.request("GET", "/", b"", Picky())
        await server.closed.wait()


async def test_a_socket_that_does_not_exist(run_dir: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await send(UnixHttpClient(run_dir / "none"))


async def test_cancelling_closes_the_connection(run_dir: Path) -> None:
    async with serving(run_dir, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel") as server:
        http = UnixHttpClient(server.path)
        request = asyncio.create_task(send(http))
        while not server.requests:
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await server.closed.wait()


async def test_closing_ends_requests_under_way_and_refuses_later_ones(run_dir: Path) -> None:
    async with serving(run_dir, b"", HELLO) as server:
        http = UnixHttpClient(server.path)
        request = asyncio.create_task(send(http))
        while not server.requests:
            await asyncio.sleep(0)
        http.close()
        with pytest.raises(ConnectionError):
            await request
        with pytest.raises(ConnectionError):
            await send(http)


async def test_closing_during_a_connect(run_dir: Path) -> None:
    async with serving(run_dir, HELLO) as server:
        http = UnixHttpClient(server.path)
        request = asyncio.create_task(send(http))
        await asyncio.sleep(0)
        http.close()
        with pytest.raises(ConnectionError):
            await request
    assert not server.requests
