"""The connection of one client: HTTP/1.1 by uvicorn and llhttp, one request at a time, with limits on size and time.

The parser is given exactly the bytes of one request. Those behind it wait, in a bounded buffer, until it is answered;
so a client that leaves is seen by the request that runs. After a chunked body, whose end only the parser knows, they
are not kept: the connection closes after the response, and the client sends them again on another one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import urllib.parse
from enum import Enum, auto
from math import inf
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from balancer.api.middleware.access_log import new_request_id
from balancer.errors import ChorusError, InvalidHttpError, RequestTimeoutError, TooManyConnectionsError
from balancer.http import head
from balancer.http.connections import Connections
from balancer.http.exchange import Exchange, ResponseTransport, refusal
from balancer.http.tcp_info import read_tcp_info

log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
"""Time in which a client can read a response before a close that discards what it still sends."""
MAX_DISCARDED_BYTES = 1_048_576
FRAMING_BYTES = 16
"""Bytes of chunked framing that a byte of the body may have; trailers and extensions beyond it are limited."""
_DISCARD_UNSENT = struct.pack("ii", 1, 0)
"""Linux's `struct linger`, with which a close frees what the kernel still holds to be sent."""
RETRY_SECONDS = 1.0
"""What a client without a place is told to wait."""


class Phase(Enum):
    """What a connection does."""

    WAITING = auto()
    """For a head: nothing of it has come."""
    HEAD = auto()
    """Receives a head."""
    BODY = auto()
    """Receives a body, while the application runs."""
    ANSWERING = auto()
    """The application runs; no more of its request will be received."""
    CLOSING = auto()
    """The last response is written; what the client sends is discarded."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. The framing, the states of a connection and their time limits are here."""

    cycle: Exchange

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self._connections = connections
        self._settings = connections.settings
        self._phase = Phase.WAITING
        self._deadline = inf
        """When this phase has lasted too long, in the event loop's time."""
        self.next_check = 0.0
        self._buffer = bytearray()
        """An incomplete head; or what came behind a request that runs."""
        self._answered = False
        """Whether the connection had a request before."""

        # Of the request.
        self._head_complete = False
        self._keep_alive = False
        self._message_complete = False
        self._left_to_read: int | None = None
        """Bytes of the body that are missing; None: it is chunked."""
        self._overhead = 0
        """Bytes of a chunked body beyond its content and common framing; or, while closing, bytes discarded."""
        self._dirty = False
        """Whether bytes behind the request were discarded."""

        # Of the response.
        self._socket: socket.socket | None = None
        self._response_transport: ResponseTransport | None = None
        self._unsent = 0
        self._acked = 0
        self._write_deadline = inf

    # The transport's events

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, if there is room for another connection."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client is not None else ""
        self._socket = transport.get_extra_info("socket")
        self._response_transport = ResponseTransport(transport, self._close)
        self._deadline = self.loop.time() + self._settings.head_seconds
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that runs."""
        super().connection_lost(exc)
        self._buffer.clear()
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Receive a head or a body, or keep the bytes for later."""
        match self._phase:
            case Phase.WAITING | Phase.HEAD:
                self._receive_head(data)
            case Phase.BODY:
                self._receive_body(data)
            case Phase.ANSWERING:
                self._keep(data)
            case Phase.CLOSING:
                self._discard(data)

    # Receiving

    def _receive_head(self, data: bytes) -> None:
        received: bytes | bytearray = data
        searched = 0
        if self._phase is Phase.HEAD:
            searched = max(0, len(self._buffer) - 2)
            self._buffer += data
            received = self._buffer
        else:
            # RFC 9112, 2.2: empty lines before a request are ignored.
            received = data.lstrip(b"\r\n") if data[:1] in b"\r\n" else data
            if not received:
                return
        try:
            if (end := head.find_end(received, searched)) < 0:
                head.check_beginning(received, self._settings)
                if self._phase is Phase.WAITING:
                    self._buffer += received
                    self._enter(Phase.HEAD, self._settings.head_seconds if self._answered else None)
                return
            request_head, rest = bytes(received[:end]), bytes(received[end:])
            self._buffer.clear()
            head.check_size(request_head, self._settings)
            self._parse_head(request_head)
        except ChorusError as error:
            self._refuse(error)
            return
        if rest:
            self.data_received(rest)

    def _parse_head(self, request_head: bytes) -> None:
        """Start the application. Raises ChorusError."""
        self._head_complete = self._message_complete = self._dirty = False
        try:
            self.parser.feed_data(head.without_upgrade(request_head))
            url = httptools.parse_url(self.url)
            raw_path = url.path or b""
            path = raw_path.decode("ascii")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError) as error:
            raise InvalidHttpError("this is not a valid HTTP/1.1 request") from error
        if not raw_path or not self._head_complete:
            raise InvalidHttpError("this is not a valid HTTP/1.1 request")
        http_version = self.parser.get_http_version()
        checked = head.check_headers(http_version, self.headers)
        self.scope["http_version"] = http_version
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        self.scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        self.scope["query_string"] = url.query or b""
        self._start(checked, keep_alive=http_version == "1.1" and self._keep_alive)

    def _start(self, checked: head.CheckedHead, *, keep_alive: bool) -> None:
        self._connections.end_waiting(self)
        self._answered = True
        self.cycle = Exchange(
            scope=self.scope,
            transport=self._response_transport,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=checked.expects_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if self._message_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()
            self._enter(Phase.ANSWERING)
        else:
            self._left_to_read = checked.content_length
            self._overhead = 0
            self._enter(Phase.BODY, self._settings.body_seconds)
        self._start_asgi_task(self.cycle, self.app)

    def _receive_body(self, data: bytes) -> None:
        body = data if self._left_to_read is None else data[: self._left_to_read]
        received = len(self.cycle.body)
        try:
            self.parser.feed_data(body)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # Behind the end of a chunked body the parser reads on, and this is of no concern.
            if not self._message_complete:
                self._give_up_body(InvalidHttpError("the body is not what the headers say"))
                return
        received = len(self.cycle.body) - received
        if self._left_to_read is None:
            self._overhead = max(0, self._overhead + len(data) - received * FRAMING_BYTES)
            if self._overhead > self._settings.max_head_bytes and not self._message_complete:
                self._give_up_body(InvalidHttpError("the body has too many bytes that are no content"))
                return
        else:
            self._left_to_read -= len(body)
        if self._message_complete:
            self._enter(Phase.ANSWERING)
            if self._dirty:
                self.cycle.keep_alive = False
            elif len(body) < len(data):
                self._keep(data[len(body) :])
        else:
            now = self.loop.time()
            self._deadline = self._extended(self._deadline, received, now, self._settings.body_seconds)

    def _give_up_body(self, error: ChorusError) -> None:
        """Receive no more of the body; the application answers, and the connection closes."""
        self.cycle.fail(error)
        self._dirty = True
        self._enter(Phase.ANSWERING)

    def _keep(self, data: bytes) -> None:
        """Keep what came behind the request that runs, or discard it where that would be too much."""
        if not self._dirty and len(self._buffer) + len(data) <= self._settings.max_head_bytes:
            self._buffer += data
            return
        self._buffer.clear()
        self._dirty = True
        self.cycle.keep_alive = False
        self.flow.pause_reading()

    def _discard(self, data: bytes) -> None:
        self._overhead += len(data)
        if self._overhead > MAX_DISCARDED_BYTES:
            self.transport.abort()

    # The parser's events

    def on_message_begin(self) -> None:
        """A request begins; or another one behind a chunked body, which is discarded."""
        if self._message_complete:
            self._dirty = True
        else:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if not self._head_complete:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. The trailers of a chunked body are ignored: they are none."""
        if not self._head_complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head has been parsed."""
        if not self._head_complete:
            self._head_complete = True
            self._keep_alive = self.parser.should_keep_alive()  # forgotten when the message is complete

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._message_complete or self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request has been parsed. Of a request without a body, the exchange has not begun yet."""
        if self._message_complete:
            return
        self._message_complete = True
        if self._phase is Phase.BODY:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # The end of a request and of the connection

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.server_state.total_requests += 1
        if self._phase is Phase.CLOSING or self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._connections.begin_waiting(self)
        self._enter(Phase.WAITING, self._settings.keep_alive_seconds)
        if self._buffer:
            pipelined = bytes(self._buffer)
            self._buffer.clear()
            self._receive_head(pipelined)

    def can_give_way(self) -> bool:
        """Whether no request is under way and the last response is sent."""
        return self._phase in (Phase.WAITING, Phase.HEAD) and not self.transport.get_write_buffer_size()

    def give_way(self) -> None:
        """Close the connection at once."""
        self._connections.end_waiting(self)
        self.transport.abort()

    def refuse_place(self) -> None:
        """Answer 503: there are too many connections."""
        error = TooManyConnectionsError("all connections are in use; try again", retry_after=RETRY_SECONDS)
        self._end_with(error, new_request_id())

    def _refuse(self, error: ChorusError) -> None:
        """Answer bytes that are no request, and close."""
        request_id = new_request_id()
        fields = {"request": request_id, "code": error.code, "client": self.address}
        log.info("refused %d", error.status, extra={"fields": fields})
        self._connections.count(error.code, summarize=False)
        self._end_with(error, request_id)

    def _end_with(self, error: ChorusError, request_id: str) -> None:
        self.transport.write(refusal(error, request_id, self.server_state.default_headers))
        self._dirty = True
        self._close()

    def _close(self) -> None:
        """Close after the response; if the client may still be sending, only once it had time to read that."""
        if self._phase is Phase.CLOSING:
            return
        unread = self._dirty or not self._message_complete or bool(self._buffer)
        self._buffer.clear()
        self._connections.end_waiting(self)
        self._overhead = 0
        self._enter(Phase.CLOSING, LINGER_SECONDS)
        if unread and not self.transport.is_closing() and self._connections.may_linger(self):
            # A close would have the kernel reset the connection, and the client lose the response.
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    # Time limits

    def end_if_overdue(self, now: float) -> None:
        """End what has lasted too long; called once a second from `next_check` on."""
        if size := self.transport.get_write_buffer_size():
            self._check_write(size, now)
            return
        self._write_deadline = inf
        if self._phase in (Phase.WAITING, Phase.HEAD):
            self.next_check = self._deadline
        if self.flow.read_paused:
            # The end of a connection that is not read from is seen in its state only.
            info = read_tcp_info(self._socket) if self._socket is not None else None
            if info is not None and not info.open:
                self.transport.abort()
            self._deadline = max(self._deadline, now + 1.0)
        elif now > self._deadline:
            self._end_overdue()

    def _end_overdue(self) -> None:
        match self._phase:
            case Phase.WAITING:
                self._connections.count("idle" if self._answered else "silent", summarize=not self._answered)
                self.transport.close()
            case Phase.HEAD:
                self._refuse(RequestTimeoutError("the headers did not arrive in time"))
            case Phase.BODY if not self.cycle.response_started:
                self._connections.count("slow_body", summarize=False)
                self._give_up_body(RequestTimeoutError("the body did not arrive in time"))
            case Phase.CLOSING:
                self.transport.abort()

    def _check_write(self, size: int, now: float) -> None:
        """Cut the connection if its client reads nothing, or too slowly."""
        info = read_tcp_info(self._socket) if self._socket is not None else None
        acked = 0 if info is None else info.bytes_acked
        if self._write_deadline == inf:
            self._write_deadline = now + self._settings.write_seconds
        else:
            progress = max(acked - self._acked, self._unsent - size)
            self._write_deadline = self._extended(self._write_deadline, progress, now, self._settings.write_seconds)
        self._acked, self._unsent = acked, size
        if now > self._write_deadline:
            self._connections.count("unread_response")
            if self._socket is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_UNSENT)
            self.transport.abort()

    def _extended(self, deadline: float, transferred: int, now: float, seconds: float) -> float:
        """The time limit of a transfer, moved on by what came: a lasting rate below the minimum runs into it."""
        return min(now + seconds, deadline + transferred / self._settings.min_bytes_per_second)

    def _enter(self, phase: Phase, seconds: float | None = inf) -> None:
        """Begin a phase with a time limit; None: the limit of the phase before goes on."""
        self._phase = phase
        self.next_check = 0.0
        if seconds is not None:
            self._deadline = inf if seconds == inf else self.loop.time() + seconds
