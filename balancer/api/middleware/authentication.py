"""API key authentication, before any other part of a request is processed."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from balancer.access.caller import Caller
from balancer.access.key_ring import KeyRing
from balancer.api.headers import header
from balancer.api.responses import error_response
from balancer.errors import NotAuthenticatedError

OPEN_PATHS = ("/health", "/ready", "/livez")
"""Paths that load balancers and probes request without a key, including all paths below them."""


class AuthenticationMiddleware:
    """Passes a request on to `app` if its API key is in the key ring, or if no keys are configured."""

    def __init__(self, app: ASGIApp, keys: KeyRing, open_paths: Iterable[str] = OPEN_PATHS) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = tuple(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 401. Sets `request.state.caller`, or `stranger` on an open path."""
        if scope["type"] != "http" or not self._keys.key_required:
            await self._app(scope, receive, send)
            return
        if (key := await self._keys.find_or_read(_sent_key(scope))) is not None:
            scope.setdefault("state", {})["caller"] = Caller(key.name, key)
            await self._app(scope, receive, send)
            return
        if self._is_open(scope["path"]):
            scope.setdefault("state", {})["stranger"] = True
            await self._app(scope, receive, send)
            return
        error = NotAuthenticatedError(
            "a valid API key is required: send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
        )
        await error_response(Request(scope), error)(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return any(path == open_path or path.startswith(f"{open_path}/") for open_path in self._open_paths)


def _sent_key(scope: Scope) -> str:
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else header(scope, b"x-api-key") or ""
