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
import weakref
from enum import Enum, auto
from functools import cached_property
from math import inf
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from balancer.api.middleware.access_log import new_request_id
from balancer.api.reading import CLIENT_WATCH
from balancer.errors import ChorusError, RequestTimeoutError, TooManyConnectionsError
from balancer.http.connections import Connections, share_of
from balancer.http.exchange import Exchange, ResponseTransport, refusal
from balancer.http.head import check_beginning, find_end
from balancer.http.request_reader import RequestHead, RequestReader
from balancer.http.tcp_info import read_tcp_info
from balancer.http.transfer_limits import ResponseWatch, TransferDeadline

log = logging.getLogger(__name__)

_ERRORS, _ACCESS = logging.getLogger("uvicorn.error"), logging.getLogger("uvicorn.access")

LINGER_SECONDS = 2.0
"""Time that a client has to read a response before the connection is closed and its further bytes are discarded."""
MAX_DISCARDED_BYTES = 1_048_576
RETRY_SECONDS = 1.0
"""Retry-After of a client for which there is no connection."""
_DISCARD_UNSENT = struct.pack("ii", 1, 0)
"""Linux's `struct linger`, with which a close frees what the kernel still holds to be sent."""


class ConnectionState(Enum):
    """The state of a connection."""

    WAITING = auto()
    """For a head: nothing of it has come."""
    HEAD = auto()
    """Receives a head."""
    READY = auto()
    """Has a head, and waits for its turn."""
    BODY = auto()
    """Receives a body, while the application runs."""
    ANSWERING = auto()
    """The application runs; no more of its request will be received."""
    CLOSING = auto()
    """The last response is written; what the client sends is discarded."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. The states of a connection and their time limits are here."""

    cycle: Exchange

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # The attributes of uvicorn's protocol that are used here. Its own method makes a parser and looks for loggers,
        # its `connection_made` makes sockets to ask for addresses: in a burst of connections, all others wait for that.
        self.config = config
        self.app = config.loaded_app
        self.loop = _loop or asyncio.get_running_loop()
        self.logger = _ERRORS
        self.access_logger, self.access_log = _ACCESS, False
        self.root_path = config.root_path
        self.asgi_version = config.asgi_version
        self.app_state = app_state
        self.server_state = server_state
        self.connections = server_state.connections
        self.tasks = server_state.tasks
        self.server = self.client = None
        self.scheme = "http"
        self.cycle = None  # type: ignore[assignment]
        self.address = ""
        self.next_check = 0.0
        self._connections = connections
        self._settings = connections.settings
        self._reader = RequestReader(self._settings)
        self._state = ConnectionState.WAITING
        self._deadline = inf
        """The end of this state's time limit, on the event loop's clock; of a body, see `_body_deadline`."""
        self._buffer = bytearray()
        """An incomplete head; or what came behind the head that waits, or behind a request that runs."""
        self._head = b""
        """The head that waits for its turn."""
        self._answered = False
        """Whether the connection had a request before."""
        self._discarded = False
        """Whether bytes of the client were discarded, or will be: there can be no further request."""
        self._discarded_bytes = 0

    # The transport's events

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, if there is room for another connection."""
        # In a burst of connections all others wait for this: what a request needs is made with the first one.
        self.connections.add(self)
        self.transport = transport
        if (peer := transport.get_extra_info("peername")) is not None:  # else it has left already
            self.client = peer[:2]
            self.address = peer[0]
        self._deadline = self.loop.time() + self._settings.head_seconds
        self._connections.add(self)

    @cached_property
    def flow(self) -> FlowControl:  # type: ignore[override]
        """Pauses reading where the client sends too much, and writing where it reads too little."""
        return FlowControl(self.transport)

    @cached_property
    def _socket(self) -> socket.socket | None:
        return cast("socket.socket | None", self.transport.get_extra_info("socket"))

    @cached_property
    def _response_watch(self) -> ResponseWatch:
        return ResponseWatch(self._socket, self._settings)

    @cached_property
    def _response_transport(self) -> ResponseTransport:
        return ResponseTransport(self.transport, self._close)

    @cached_property
    def _body_deadline(self) -> TransferDeadline:
        return TransferDeadline(self._settings.body_seconds, self._settings.min_bytes_per_second)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that runs, in its turn: what it does then takes as long as a new one."""
        self.connections.discard(self)
        self._buffer.clear()
        self._reader.release()
        self._connections.discard(self)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self._connections.turns.take(share_of(self.address), self.cycle.tell_loss)

    def data_received(self, data: bytes) -> None:
        """Receive a head or a body, or keep the bytes for later."""
        match self._state:
            case ConnectionState.WAITING | ConnectionState.HEAD:
                self._receive_head(data)
            case ConnectionState.READY:
                self._buffer += data
                self.flow.pause_reading()
            case ConnectionState.BODY:
                self._receive_body(data)
            case ConnectionState.ANSWERING:
                self._keep(data)
            case ConnectionState.CLOSING:
                self._discarded_bytes += len(data)
                if self._discarded_bytes > MAX_DISCARDED_BYTES:
                    self.transport.abort()

    # Receiving

    def _receive_head(self, data: bytes) -> None:
        received: bytes | bytearray = data
        searched = 0
        if self._state is ConnectionState.HEAD:
            searched = max(0, len(self._buffer) - 2)
            self._buffer += data
            received = self._buffer
        else:
            # RFC 9112, 2.2: empty lines before a request are ignored.
            received = data.lstrip(b"\r\n") if data[:1] in b"\r\n" else data
            if not received:
                return
        try:
            if (end := find_end(received, searched)) < 0:
                check_beginning(received, self._settings)
                if self._state is ConnectionState.WAITING:
                    self._buffer += received
                    self._enter(ConnectionState.HEAD, self._settings.head_seconds if self._answered else None)
                return
        except ChorusError as error:
            self._refuse(error)
            return
        self._head, self._buffer = bytes(received[:end]), bytearray(received[end:])
        self._connections.end_waiting(self)
        self._enter(ConnectionState.READY)
        self._connections.turns.take(share_of(self.address), self._read_head)

    def _read_head(self) -> None:
        """Read the head that waits, unless the client has left meanwhile."""
        if self._state is not ConnectionState.READY or self.transport.is_closing():
            return
        rest = bytes(self._buffer)
        self._buffer.clear()
        self.flow.resume_reading()
        try:
            self._start(self._reader.read_head(self._head))
        except ChorusError as error:
            self._refuse(error)
            return
        if rest:
            self.data_received(rest)

    def _start(self, head: RequestHead) -> None:
        """Start the application."""
        if not self._answered and (own := self.transport.get_extra_info("sockname")) is not None:
            self.server = own[:2]
        self._answered = True
        self.on_message_begin()  # makes the scope
        self.scope["http_version"] = head.http_version
        self.scope["method"] = head.method
        self.scope["path"] = self.root_path + head.path
        self.scope["raw_path"] = self.root_path.encode("ascii") + head.raw_path
        self.scope["query_string"] = head.query
        self.scope["headers"] = head.headers
        self.cycle = Exchange(
            scope=self.scope,
            transport=self._response_transport,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keep_alive and not self._connections.closing,
            on_response=self.on_response_complete,
        )
        # A weak reference: the exchange refers to the scope, and no request is to be left to the garbage collector.
        self.scope["extensions"] = {CLIENT_WATCH: weakref.ref(self.cycle)}  # type: ignore[dict-item]
        if self._reader.complete:
            self._end_body()
        else:
            self._body_deadline.start(self.loop.time())
            self._enter(ConnectionState.BODY)
        self._start_asgi_task(self.cycle, self.app)

    def _receive_body(self, data: bytes) -> None:
        try:
            content, rest = self._reader.read_body(data)
        except ChorusError as error:
            self._give_up_body(error)
            return
        self.cycle.body += content
        if self._reader.complete:
            self._end_body()
            if self._reader.surplus:
                self._discard_rest()
            elif rest:
                self._keep(rest)
            return
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()
        self._body_deadline.advance(len(content), self.loop.time())

    def _end_body(self) -> None:
        """The request has been received to its end."""
        self._enter(ConnectionState.ANSWERING)
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _give_up_body(self, error: ChorusError) -> None:
        """Receive no more of the body; the application answers, and the connection closes."""
        self._enter(ConnectionState.ANSWERING)
        self._discard_rest()
        self.cycle.fail(error)

    def _keep(self, data: bytes) -> None:
        """Keep what came behind the request that runs, or discard it where that would be too much."""
        if not self._discarded and len(self._buffer) + len(data) <= self._settings.max_head_bytes:
            self._buffer += data
        else:
            self._discard_rest()
            self.flow.pause_reading()

    def _discard_rest(self) -> None:
        """Keep nothing of what the client sends from now on; the connection closes after the response."""
        self._buffer.clear()
        self._discarded = True
        self.cycle.keep_alive = False

    # The end of a request and of the connection

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.server_state.total_requests += 1
        if self._state is ConnectionState.CLOSING or self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._connections.begin_waiting(self)
        self._enter(ConnectionState.WAITING, self._settings.keep_alive_seconds)
        if self._buffer:
            pipelined = bytes(self._buffer)
            self._buffer.clear()
            self._receive_head(pipelined)

    def close_after_response(self) -> None:
        """Close the connection after the response of the request that runs, if that has not begun, and say so in it."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection, after the response to the request that runs or waits; called when the server stops."""
        self._read_head()
        super().shutdown()

    def can_give_way(self) -> bool:
        """Whether no request is under way and the last response is sent."""
        return (
            self._state in (ConnectionState.WAITING, ConnectionState.HEAD)
            and not self.transport.get_write_buffer_size()
        )

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
        self._discarded = True
        self._close()

    def _close(self) -> None:
        """Close after the response; if the client may still be sending, only once it had time to read that."""
        if self._state is ConnectionState.CLOSING:
            return
        unread = self._discarded or not self._reader.complete or bool(self._buffer)
        self._buffer.clear()
        self._connections.end_waiting(self)
        self._enter(ConnectionState.CLOSING, LINGER_SECONDS)
        if unread and not self.transport.is_closing() and self._connections.may_linger(self):
            # A close would have the kernel reset the connection, and the client lose the response.
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    # Time limits

    def end_if_overdue(self, now: float) -> None:
        """End what has lasted too long; called once a second from `next_check` on."""
        if unsent := self.transport.get_write_buffer_size():
            if self._response_watch.is_overdue(unsent, now):
                self._cut()
            return
        if self._state in (ConnectionState.WAITING, ConnectionState.HEAD) and not self._answered:
            self._end_or_check_later(now)
            return
        self._response_watch.all_sent()
        if self.flow.read_paused:
            # The end of a connection that is not read from is seen in its state only.
            info = None if self._socket is None else read_tcp_info(self._socket)
            if info is not None and not info.open:
                self.transport.abort()
            self._body_deadline.start(now)  # it is this side that waits
        elif self._state is ConnectionState.BODY:
            if now > self._body_deadline.at and not self.cycle.response_started:
                self._connections.count("slow_body", summarize=False)
                self._give_up_body(RequestTimeoutError("the body did not arrive in time"))
        else:
            self._end_or_check_later(now)

    def _end_or_check_later(self, now: float) -> None:
        if now > self._deadline:
            self._end_overdue()
        elif self._state in (ConnectionState.WAITING, ConnectionState.HEAD):
            self.next_check = self._deadline

    def _end_overdue(self) -> None:
        match self._state:
            case ConnectionState.WAITING:
                self._connections.count("idle" if self._answered else "silent", summarize=not self._answered)
                self.transport.close()
            case ConnectionState.HEAD:
                self._refuse(RequestTimeoutError("the headers did not arrive in time"))
            case ConnectionState.CLOSING:
                self.transport.abort()

    def _cut(self) -> None:
        """End the connection of a client that does not read."""
        self._connections.count("unread_response")
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_UNSENT)
        self.transport.abort()

    def _enter(self, state: ConnectionState, seconds: float | None = inf) -> None:
        """Enter a state with a time limit; None: the limit of the state before goes on."""
        self._state = state
        self.next_check = 0.0
        if seconds is not None:
            self._deadline = inf if seconds == inf else self.loop.time() + seconds
