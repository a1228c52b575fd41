"""An HTTP/1.1 client over a Unix socket with persistent connections.

It uses httptools, uvicorn's parser: a request takes a tenth of the 0.4 ms of a general HTTP client. It talks only to
our own workers, so it has no redirects and no compression; bodies have a length or are chunked. It keeps nothing of a
response: its handler bounds what is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import httptools


class ResponseHandler(Protocol):
    """Receives a response as it arrives. An exception of its methods ends the request."""

    def on_status(self, status: int) -> None:
        """The headers have arrived."""

    def on_data(self, data: bytes) -> None:
        """A part of the body has arrived."""


class UnixHttpClient:
    """HTTP client of the server that listens on the Unix socket `path`.

    `on_unrequested` is called when the server sends data that no request asked for, such as a second response. The
    connection is closed then.
    """

    def __init__(self, path: Path, on_unrequested: Callable[[], None] = lambda: None) -> None:
        self._path = str(path)
        self._on_unrequested = on_unrequested
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._closed = False

    async def request(self, method: str, target: str, body: bytes, handler: ResponseHandler) -> None:
        """Send a request and pass its whole response to `handler`. Cancelling it closes the connection.

        Raises OSError if the server does not answer completely, httptools.HttpParserError if the response is not
        HTTP, and the exceptions of `handler`.
        """
        connection = await self._connection()
        head = f"{method} {target} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            await connection.exchange(head.encode("ascii") + body, handler)
        except BaseException:
            connection.abort()
            raise
        if connection.reusable and not self._closed:
            self._idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close all connections for good: requests under way and later ones raise ConnectionError."""
        self._closed = True
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    async def _connection(self) -> _Connection:
        while self._idle:
            if (idle := self._idle.pop()).reusable:
                return idle
        if self._closed:
            raise ConnectionAbortedError("the client is closed")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(
            lambda: _Connection(self._open, self._on_unrequested), self._path
        )
        if self._closed:  # during the connect
            connection.abort()
            raise ConnectionAbortedError("the client is closed")
        return connection


class _UnrequestedError(Exception):
    """A second response begins in the data that ended the first."""


class _Connection(asyncio.Protocol):
    """One connection and the request under way on it. httptools calls its `on_…` methods.

    The connection is in `open_connections` for as long as it is open.
    """

    def __init__(self, open_connections: set[_Connection], on_unrequested: Callable[[], None]) -> None:
        self._open_connections = open_connections
        self._on_unrequested = on_unrequested
        self._response: asyncio.Future[None] | None = None
        self.reusable = True

    async def exchange(self, request: bytes, handler: ResponseHandler) -> None:
        self._handler = handler
        self._response = asyncio.get_running_loop().create_future()
        if not self.reusable:  # it was closed between being taken from the idle ones and being used
            raise ConnectionResetError("the connection is lost")
        self._transport.write(request)
        try:
            await self._response
        finally:
            self._response = None

    def abort(self) -> None:
        self.reusable = False
        self._transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._response is None or self._response.done():
            self._refuse_unrequested()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error  # the exception of the handler
            if isinstance(cause, _UnrequestedError):
                self._refuse_unrequested()
            else:
                self._fail(cause)
        except httptools.HttpParserError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._open_connections.discard(self)
        self._fail(exc or ConnectionResetError("the connection was closed before the end of the response"))

    def _refuse_unrequested(self) -> None:
        """Close the connection, unless that was done before: what comes afterwards is the rest of the same data."""
        if not self._transport.is_closing():
            self.abort()
            self._on_unrequested()

    def _fail(self, error: BaseException) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(error)

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self._response is None or self._response.done():
            raise _UnrequestedError

    def on_headers_complete(self) -> None:
        self._handler.on_status(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self._handler.on_data(body)

    def on_message_complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        if self._response is not None and not self._response.done():
            self._response.set_result(None)
