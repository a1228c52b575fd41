"""One line and one metric a request; gives each its id, honoured if the client sent one, and returns it."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from balancer.telemetry import Telemetry

log = logging.getLogger(__name__)

PROBED = frozenset({"/health", "/ready", "/metrics"})
"""What machines ask every few seconds: logged at level debug only."""

_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class AccessLog:
    """Wraps the whole application, so that no answer goes without its id."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, surfaces: frozenset[str]) -> None:
        self._app = app
        self._telemetry = telemetry
        self._surfaces = surfaces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            # Paths that do not exist share one label: a scanner must not grow the metrics.
            surface = scope["path"] if scope["path"] in self._surfaces else "other"
            self._telemetry.answered(surface, status, seconds)
            level = logging.DEBUG if surface in PROBED else logging.INFO
            log.log(level, "%s %s %s %d %.3fs", request_id, scope["method"], surface, status, seconds)


def _request_id(headers: Headers) -> str:
    offered = headers.get("x-request-id", "")
    return offered if _ACCEPTABLE_ID.fullmatch(offered) else secrets.token_hex(8)
