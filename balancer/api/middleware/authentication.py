"""Who may ask: API keys, checked before anything else is looked at."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from balancer.access.api_keys import KeyRing
from balancer.access.caller import Caller
from balancer.api.responses import error_response
from balancer.errors import NotAuthenticatedError

OPEN_PATHS = ("/health", "/ready")
"""What load balancers and probes ask without a key, with all that lies below."""


class AuthenticationMiddleware:
    """Lets only requests with a key of the ring through to `app`; where the ring guards nothing, every request."""

    def __init__(self, app: ASGIApp, keys: KeyRing, open_paths: Iterable[str] = OPEN_PATHS) -> None:
        self._app = app
        self._keys = keys
        self._open = tuple(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        guarded = scope["type"] == "http" and self._keys.guards and not self._is_open(scope["path"])
        if not guarded:
            await self._app(scope, receive, send)
            return
        if (key := self._keys.find(_offered(HTTPConnection(scope)))) is not None:
            scope.setdefault("state", {})["caller"] = Caller(key.name, key)
            await self._app(scope, receive, send)
            return
        error = NotAuthenticatedError(
            "a valid API key is needed: send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
        )
        await error_response(Request(scope), error)(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return any(path == known or path.startswith(f"{known}/") for known in self._open)


def _offered(connection: HTTPConnection) -> str:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
