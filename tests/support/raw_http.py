"""HTTP written byte by byte to a real socket, for requests that no client library would send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.harness import TIMEOUT

BODY = b'{"text": "Hi."}'
TTS = b"POST /tts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
READY = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n"


@dataclass
class RawResponse:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of the error in the body, which must have the API's error shape."""
        assert self.headers["content-type"] == "application/json"
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"]
        return str(error["code"])


class RawConnection:
    """A connection to a server of the harness."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = b""

    def send(self, data: bytes) -> None:
        """Send all of it; what the server does not want any more is lost."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def response(self) -> RawResponse:
        """The next response. Raises EOFError if the connection ends before."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._receive()
        status_line, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = end + 4 + int(headers.get("content-length", "0"))
        while len(self._received) < size:
            self._receive()
        body, self._received = self._received[end + 4 : size], self._received[size:]
        return RawResponse(int(status_line.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes the connection without another byte, within the time limit."""
        try:
            self._receive()
        except EOFError:
            return not self._received
        return False

    def until_closed(self) -> bytes:
        """All bytes until the server closes the connection."""
        with suppress(EOFError):
            while True:
                self._receive()
        received, self._received = self._received, b""
        return received

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        self._received += data


@contextmanager
def connect(url: str, *, source: str = "127.0.0.1", receive_buffer: int | None = None) -> Iterator[RawConnection]:
    """A connection from the loopback address `source`."""
    target = urlsplit(url)
    with socket.socket() as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(TIMEOUT)
        connection.bind((source, 0))
        connection.connect((target.hostname, target.port))
        yield RawConnection(connection)


def ask(url: str, request: bytes) -> RawResponse:
    """The response to one request on a connection of its own."""
    with connect(url) as connection:
        connection.send(request)
        return connection.response()


def with_body(head: bytes, *headers: bytes, body: bytes = BODY) -> bytes:
    """A request with a body of the right length."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, lines, len(body), body)


def chunked(head: bytes, *chunks: bytes, trailers: bytes = b"") -> bytes:
    """A request with a chunked body."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (head, body, trailers)
