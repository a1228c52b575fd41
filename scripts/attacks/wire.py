"""Raw HTTP over TCP: requests as bytes, from any loopback address, and connections that are held open.

An attacker sends what no HTTP library sends. All connections lead to 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import Any

HOST = "127.0.0.1"
ATTACKER, BYSTANDER, OTHER = "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""Addresses of the attacker, of the other caller that is measured, and of a third one that attacks ask as."""

TIMEOUT = 30.0
"""Seconds within which a request must be answered."""

CONNECT_SECONDS = 3.0
KEPT_BYTES = 4 * 2**20
"""The rest of a longer answer is received and dropped."""


class NoAnswerError(Exception):
    """A request got no complete answer; the message says what happened instead: `refused`, `broken` or a time-out."""


REFUSED = "refused"
"""The message of a NoAnswerError if nothing accepted the connection."""


@dataclass(frozen=True)
class Answer:
    """An answer; of a long one only the first KEPT_BYTES."""

    status: int
    headers: Mapping[str, str]
    """With names in lower case."""
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def attackers(count: int) -> list[str]:
    """Different loopback addresses: an attacker who has many gets past limits of one."""
    return [f"127.0.1.{number + 1}" for number in range(count)]


def request_head(
    method: str, path: str, headers: Sequence[tuple[str, str]] = (), *, close: bool = True, host: str | None = HOST
) -> bytes:
    """Request line and headers with the empty line. `host` None leaves out the header."""
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host is not None else [])]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += ["Connection: close"] if close else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(path: str, body: object, headers: Sequence[tuple[str, str]] = (), *, close: bool = True) -> bytes:
    """A complete POST request; a `body` that is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    typed = any(name.lower() == "content-type" for name, _ in headers)
    sent = [*headers, *([] if typed else [("Content-Type", "application/json")]), ("Content-Length", str(len(content)))]
    return request_head("POST", path, sent, close=close) + content


async def exchange(port: int, request: bytes, *, source: str = ATTACKER, timeout: float = TIMEOUT) -> Answer:
    """The answer to one request on a connection of its own, which the server must close. Raises NoAnswerError."""
    try:
        async with asyncio.timeout(timeout):
            received = await _send_and_receive(port, request, source)
    except TimeoutError as error:
        raise NoAnswerError(f"no answer within {timeout:g} s") from error
    except ConnectionRefusedError as error:
        raise NoAnswerError(REFUSED) from error
    except OSError as error:
        raise NoAnswerError(f"broken: {errno.errorcode.get(error.errno or 0, error)}") from error
    return parse_answer(received)


async def _send_and_receive(port: int, request: bytes, source: str) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port, local_addr=(source, 0))
    received = bytearray()
    try:
        with suppress(ConnectionError):  # a server may answer and close before it has read everything
            writer.write(request)
            await writer.drain()
        while data := await reader.read(2**18):
            if len(received) < KEPT_BYTES:
                received += data
    finally:
        writer.close()
    return bytes(received)


def parse_answer(received: bytes) -> Answer:
    """The first final answer in what a server sent until it closed the connection. Raises NoAnswerError."""
    if not received:
        raise NoAnswerError("broken: closed without an answer")
    response = HTTPResponse(_ReceivedSocket(received))  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read() if len(received) < KEPT_BYTES else received.partition(b"\r\n\r\n")[2]
    except (HTTPException, ValueError) as error:
        raise NoAnswerError(f"broken: {type(error).__name__}") from error
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


class _ReceivedSocket:
    """What HTTPResponse needs of a socket."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, _: str) -> BytesIO:
        return BytesIO(self._received)


def connect(
    port: int, data: bytes = b"", *, source: str = ATTACKER, receive_buffer: int | None = None
) -> socket.socket:
    """A connection on which `data` has been sent as far as the server takes it at once; it does not block.

    Raises OSError.
    """
    client = socket.socket()
    try:
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.bind((source, 0))
        client.settimeout(CONNECT_SECONDS)
        client.connect((HOST, port))
        client.setblocking(False)
        push(client, data)
    except OSError:
        client.close()
        raise
    return client


def push(client: socket.socket, data: bytes) -> bool:
    """Send what the server takes at once; whether the connection still takes anything."""
    try:
        client.send(data)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def held_connections(
    port: int,
    count: int,
    *,
    data: Sequence[bytes] = (b"",),
    sources: Sequence[str] = (ATTACKER,),
    receive_buffer: int | None = None,
) -> Iterator[list[socket.socket]]:
    """Hold connections open until the end of the block, with `data` and `sources` by turns.

    Gives those that were accepted.
    """
    held: list[socket.socket] = []
    try:
        for number in range(count):
            with suppress(OSError):
                chosen, source = data[number % len(data)], sources[number % len(sources)]
                held.append(connect(port, chosen, source=source, receive_buffer=receive_buffer))
        yield held
    finally:
        for client in held:
            client.close()


def is_open(client: socket.socket) -> bool:
    """Whether the server has neither closed nor reset a connection; what it has sent is dropped."""
    try:
        while client.recv(2**16):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body behind this head, which says how long it is; empty if it does not."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return await reader.readexactly(int(line.partition(b":")[2]))
    return b""
