"""Access log: one log line and one metric per request, and the id of each request.

A valid X-Request-Id of the client is kept; otherwise an id is generated. The response returns it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection, Iterable

from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from balancer.api.headers import header
from balancer.metrics import SPEECH_SURFACES, Metrics
from balancer.requests.log_fields import RequestLogFields

log = logging.getLogger(__name__)

PROBE_PATHS = frozenset(
    {"/health", "/ready", "/livez", "/metrics", "/history", "/status/{id}", "/page/{path}", "/segments"}
)
"""Routes that machines poll, and that the page asks while somebody types: logged at level DEBUG only."""

OPTIONS = "options"
"""The surface under which requests of this method, most of them browsers' preflights, are counted on all paths."""

MAX_LOGGED_CHARACTERS = 200
"""Length of a path that is logged."""

_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class AccessLogMiddleware:
    """Wraps the whole application, so that every response has a request id. `routes` are the application's.

    Of the routes in `speech_paths` the time to the first byte of their audio is recorded.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: Iterable[Route], speech_paths: Collection[str] = SPEECH_SURFACES
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._speech_paths = speech_paths
        self._paths = frozenset(route.path for route in routes if not route.param_convertors)
        self._templates = [(route.path_regex, route.path_format) for route in routes if route.param_convertors]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, then log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["log_fields"] = log_fields = RequestLogFields()
        surface = self._surface(scope["path"])
        preflight = scope["method"] == "OPTIONS"
        started = time.perf_counter()
        status = 0
        awaiting_audio = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, awaiting_audio
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                awaiting_audio = status in (200, 206) and surface in self._speech_paths and not preflight
            elif awaiting_audio and message.get("body"):
                # Not at the response head: a streamed response sends it before there is any audio.
                awaiting_audio = False
                self._metrics.record_first_byte(
                    surface, time.perf_counter() - started, streamed=bool(log_fields.streamed)
                )
            await send(message)

        self._metrics.open_requests += 1
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._metrics.open_requests -= 1
            seconds = time.perf_counter() - started
            self._metrics.record_response(
                OPTIONS if preflight else surface, status, seconds, streamed=bool(log_fields.streamed)
            )
            level = logging.DEBUG if surface in PROBE_PATHS else logging.INFO
            if log.isEnabledFor(level):
                fields = {"request": request_id, "seconds": round(seconds, 4)} | log_fields.as_dict()
                if status >= 400:
                    fields |= _origin(scope, surface)
                log.log(level, "%s %s %d", scope["method"], surface, status, extra={"fields": fields})

    def _surface(self, path: str) -> str:
        """The path of the route, or `other` for unknown paths: a scanner must not create label values."""
        if path in self._paths:
            return path
        return next((template for regex, template in self._templates if regex.match(path)), "other")


def _origin(scope: Scope, surface: str) -> dict[str, str]:
    """Log fields of a refused request beside its route: the client's address, and the path where the route hides it."""
    path, client = scope["path"], scope.get("client")
    fields = {} if path == surface else {"path": path[:MAX_LOGGED_CHARACTERS]}
    return fields if client is None else fields | {"client": client[0]}


def new_request_id() -> str:
    """A random id of a request."""
    return os.urandom(8).hex()


def _request_id(scope: Scope) -> str:
    sent = header(scope, b"x-request-id")
    return sent if sent is not None and _VALID_REQUEST_ID.fullmatch(sent) else new_request_id()
