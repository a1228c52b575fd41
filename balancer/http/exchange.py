"""One request and its response on a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from balancer.api.responses import internal_error_response, response_to
from balancer.errors import ChorusError


class ResponseTransport:
    """The part of a transport that a response uses. `close` ends the connection in the protocol's way."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Exchange(RequestResponseCycle):
    """uvicorn's exchange, which also tells the application of a body that cannot be received to its end."""

    fault: ChorusError | None = None
    """Why the body ends before its time. It becomes the response, if there is none yet."""
    _on_gone: Callable[[], None] | None = None

    def fail(self, fault: ChorusError) -> None:
        """Raise `fault` where the application reads the body."""
        self.fault = fault
        self.message_event.set()

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """Call `on_gone` when the client closes the connection, or at once if it has; None: no longer.

        As while the application waits for `http.disconnect`, the connection is read from.
        """
        if on_gone is not None and self.disconnected:
            on_gone()
            return
        self._on_gone = on_gone
        if on_gone is not None:
            self.flow.resume_reading()

    def tell_loss(self) -> None:
        """Tell the application that the client has closed the connection."""
        self.message_event.set()
        self.flow.resume_writing()
        if self._on_gone is not None:
            self._on_gone()

    def abort(self) -> None:
        """Break the connection off: what was sent of a response without a length is not its end."""
        self.disconnected = True
        self.transport.close()

    async def receive(self) -> ASGIReceiveEvent:
        """The next event of the request. Raises the fault of its body."""
        message = await super().receive()
        if self.fault is not None and not self.response_started and not self.disconnected:
            raise self.fault
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of the response. If the body has not been received by then, the connection closes after it."""
        if self.more_body and not self.response_started:
            self.keep_alive = False
        await super().send(message)

    async def send_500_response(self) -> None:
        """Send the response to an exception that the application did not handle."""
        response = internal_error_response(Request(self.scope), Exception())  # type: ignore[arg-type]
        headers = [*response.raw_headers, (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self.send({"type": "http.response.body", "body": bytes(response.body), "more_body": False})


def refusal(error: ChorusError, request_id: str, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """The whole response to bytes that are no request, in the API's error shape."""
    response = response_to(error)
    response.headers["X-Request-Id"] = request_id
    headers = [*default_headers, *response.raw_headers, (b"connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%b%b\r\n%b" % (STATUS_LINE[error.status], lines, bytes(response.body))
