"""A server on a Unix socket whose bytes are written by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def unix_server(path: Path, serve: Serve) -> AsyncIterator[None]:
    """Have `serve` handle every connection. The end of the block waits until all clients have closed theirs."""
    serving: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client closed the connection
        finally:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(handle(reader, writer)))

    async with await asyncio.start_unix_server(accept, path):
        yield
        if serving:
            await asyncio.wait(serving)
            await asyncio.gather(*serving)
