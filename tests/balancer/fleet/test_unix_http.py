"""The client against small servers that write what each test wants, byte for byte."""

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
class Taken:
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
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def serving(folder: Path, *answers: bytes, close: bool = False) -> AsyncIterator[Server]:
    """Each request gets the next of `answers`, and none once they run out; then the connection is closed, or not."""
    server = Server(folder / "s")
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                server.requests.append(head + await reader.readexactly(length))
                writer.write(left.pop(0))
            if not close:
                await reader.read()
        finally:
            server.hung_up.set()

    async with unix_server(server.path, serve):
        yield server


async def ask(http: UnixHttpClient, body: bytes = b"") -> Taken:
    taken = Taken()
    async with asyncio.timeout(30):
        await http.request("POST", "/path", body, taken)
    return taken


async def test_a_request_and_its_answer(run_dir: Path) -> None:
    async with serving(run_dir, HELLO) as server:
        http = UnixHttpClient(server.path)
        assert await ask(http, b"data") == Taken([200], b"hello")
        http.close()
    assert server.requests == [b"POST /path HTTP/1.1\r\nHost: worker\r\nContent-Length: 4\r\n\r\ndata"]


async def test_a_body_in_chunks(run_dir: Path) -> None:
    answer = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    async with serving(run_dir, answer) as server:
        http = UnixHttpClient(server.path)
        assert await ask(http) == Taken([429], b"hello")
        http.close()


async def test_connections_are_used_again(run_dir: Path) -> None:
    async with serving(run_dir, *[HELLO] * 3) as server:
        http = UnixHttpClient(server.path)
        for _ in range(3):
            await ask(http)
        http.close()
    assert server.connections == 1


async def test_exchanges_at_once_have_connections_of_their_own(run_dir: Path) -> None:
    async with serving(run_dir, *[HELLO] * 3) as server:
        http = UnixHttpClient(server.path)
        await asyncio.gather(*[ask(http) for _ in range(3)])
        http.close()
    assert server.connections == 3


async def test_a_connection_that_the_server_will_close_is_not_used_again(run_dir: Path) -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with serving(run_dir, last, HELLO) as server:
        http = UnixHttpClient(server.path)
        await ask(http)
        assert (await ask(http)).body == b"hello"
        http.close()
    assert server.connections == 2


async def test_a_connection_that_was_closed_in_the_meantime_is_not_used_again(run_dir: Path) -> None:
    async with serving(run_dir, HELLO, close=True) as server:
        http = UnixHttpClient(server.path)
        await ask(http)
        await server.hung_up.wait()
        while http._idle[0].reusable:
            await asyncio.sleep(0)
    async with serving(run_dir, HELLO) as server:
        assert (await ask(http)).body == b"hello"
        http.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", HELLO[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"]
)
async def test_an_answer_that_breaks_off(run_dir: Path, answer: bytes) -> None:
    async with serving(run_dir, answer, close=True) as server:
        http = UnixHttpClient(server.path)
        with pytest.raises(ConnectionError):
            await ask(http)
        http.close()


async def test_what_is_not_http(run_dir: Path) -> None:
    async with serving(run_dir, b"SSH-2.0\r\n") as server:
        http = UnixHttpClient(server.path)
        with pytest.raises(httptools.HttpParserError):
            await ask(http)
        await server.hung_up.wait()


async def test_what_the_taker_raises_ends_the_exchange(run_dir: Path) -> None:
    class Picky(Taken):
        def on_data(self, data: bytes) -> None:
            raise KeyError(data.decode())

    async with serving(run_dir, HELLO) as server:
        http = UnixHttpClient(server.path)
        with pytest.raises(KeyError, match="hello"):
            await http.request("GET", "/", b"", Picky())
        await server.hung_up.wait()


async def test_nobody_there(run_dir: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await ask(UnixHttpClient(run_dir / "none"))


async def test_cancelling_hangs_up(run_dir: Path) -> None:
    async with serving(run_dir, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel") as server:
        http = UnixHttpClient(server.path)
        asking = asyncio.create_task(ask(http))
        while not server.requests:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.hung_up.wait()


async def test_closing_breaks_off_what_is_under_way_and_ends_it_for_good(run_dir: Path) -> None:
    async with serving(run_dir, b"", HELLO) as server:
        http = UnixHttpClient(server.path)
        asking = asyncio.create_task(ask(http))
        while not server.requests:
            await asyncio.sleep(0)
        http.close()
        with pytest.raises(ConnectionError):
            await asking
        with pytest.raises(ConnectionError):
            await ask(http)


async def test_closing_while_a_connection_is_dialled(run_dir: Path) -> None:
    async with serving(run_dir, HELLO) as server:
        http = UnixHttpClient(server.path)
        asking = asyncio.create_task(ask(http))
        await asyncio.sleep(0)
        http.close()
        with pytest.raises(ConnectionError):
            await asking
    assert not server.requests
