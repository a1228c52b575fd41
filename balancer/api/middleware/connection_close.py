"""Tells clients to open a new connection, shortly before this process closes their current one.

Without it, a client with a keep-alive connection may send its next request just as the connection closes, and fail.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ConnectionCloseMiddleware:
    """Wraps the application. Once `closing` is true, every response has `Connection: close`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self.closing:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_and_close)
