"""HTTP/1.1 over a Unix socket, as a client, with connections kept open between exchanges.

httptools parses, as it does for the server: of a general client's 0.4 ms an exchange, this takes a tenth. It speaks
only to our own workers: no redirects, no compression, bodies with a length or in chunks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol, cast

import httptools


class Answer(Protocol):
    """Takes an answer as it comes. What its methods raise ends the exchange."""

    def begin(self, status: int) -> None:
        """The answer's head is there."""

    def take(self, part: bytes) -> None:
        """A part of its body."""


class UnixHttp:
    """A client of the server at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._idle: list[_Channel] = []
        self._open: set[_Channel] = set()
        self._closed = False

    async def ask(self, method: str, target: str, body: bytes, answer: Answer) -> None:
        """Have `answer` take the whole answer. Cancelling it hangs up.

        Raises OSError where nobody answers to the end, httptools.HttpParserError, or what `answer` raises.
        """
        channel = await self._channel()
        request = f"{method} {target} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            await channel.exchange(request.encode("ascii") + body, answer)
        except BaseException:
            channel.hang_up()
            raise
        if channel.reusable and not self._closed:
            self._idle.append(channel)
        else:
            channel.hang_up()

    def close(self) -> None:
        """Hang up; exchanges under way break off, and there are no more."""
        self._closed = True
        for channel in list(self._open):
            channel.hang_up()
        self._idle.clear()

    async def _channel(self) -> _Channel:
        while self._idle:
            if (channel := self._idle.pop()).reusable:
                return channel
        if self._closed:
            raise ConnectionAbortedError("the connection to this process is closed")
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: _Channel(self._open), self._path)
        if self._closed:  # while it was being dialled
            channel.hang_up()
            raise ConnectionAbortedError("the connection to this process is closed")
        return channel


class _Channel(asyncio.Protocol):
    """One connection, and the exchange that is under way on it. httptools calls its `on_…` methods."""

    def __init__(self, everyone: set[_Channel]) -> None:
        self._everyone = everyone
        self._answered: asyncio.Future[None] | None = None
        self.reusable = True

    async def exchange(self, request: bytes, answer: Answer) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer = answer
        self._answered = asyncio.get_running_loop().create_future()
        if not self.reusable:  # it broke between being chosen and being used
            raise ConnectionResetError("the connection is lost")
        self._transport.write(request)
        try:
            await self._answered
        finally:
            self._answered = None

    def hang_up(self) -> None:
        self.reusable = False
        self._transport.abort()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._everyone.add(self)

    def data_received(self, data: bytes) -> None:
        if self._answered is None:  # nobody asked
            self.hang_up()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)  # what the answer raised
        except httptools.HttpParserError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._everyone.discard(self)
        self._fail(exc or ConnectionResetError("it closed the connection before the end of its answer"))

    def _fail(self, error: BaseException) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)

    # What the parser tells.

    def on_headers_complete(self) -> None:
        self._answer.begin(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self._answer.take(body)

    def on_message_complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
