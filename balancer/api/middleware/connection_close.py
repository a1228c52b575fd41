"""Tells clients to come back on a new connection, shortly before this process closes those that they have.

A client that keeps its connection open may send its next request just as it is closed, and would see that as an error.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ConnectionCloseMiddleware:
    """Around the application; once `leaving` is set, each answer closes its connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.leaving = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self.leaving:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_and_close)
