"""Receivers of webhooks on 127.0.0.1, one per path: good, slow and endless ones."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

from scripts.attacks.wire import HOST, read_body

PIECE_SECONDS = 0.05
ANSWER_SECONDS = 60.0


class Receivers:
    """What each path has received."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.jobs: set[str] = set()
        """Ids of the jobs that the path `/good` was told of."""
        self.port = 0
        self._tasks: list[asyncio.Task[None]] = []

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://{HOST}:{self.port}{path}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin to answer a connection's request."""
        self._tasks.append(asyncio.create_task(self._handle(reader, writer)))

    async def close(self) -> None:
        """End all answers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.received[path] += 1
                await self._answer(path, await read_body(reader, head), writer)

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        match path:
            case "/slow":
                await asyncio.Event().wait()
            case "/endless-head":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                await _write_forever(writer, b"X-A: " + b"b" * 8000 + b"\r\n")
            case "/endless-body":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                await _write_forever(writer, b"2000\r\n" + b"b" * 0x2000 + b"\r\n")
            case "/early-hints":
                await _write_forever(writer, b"HTTP/1.1 103 Early Hints\r\n\r\n")
            case _:
                self.jobs.add(json.loads(body)["data"]["requestId"])
                writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                await writer.drain()


async def _write_forever(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(PIECE_SECONDS)


@asynccontextmanager
async def start_receivers() -> AsyncIterator[Receivers]:
    """Run the receivers until the end of the block."""
    receivers = Receivers()
    server = await asyncio.start_server(receivers.accept, HOST, 0, backlog=512)
    receivers.port = server.sockets[0].getsockname()[1]
    try:
        yield receivers
    finally:
        server.close()
        await receivers.close()
