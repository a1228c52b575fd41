"""Who may ask: API keys, checked before anything else is looked at."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from balancer.answers import answer_error
from balancer.errors import NotAuthenticatedError

OPEN_PATHS = ("/health", "/ready", "/openapi.json", "/docs")
"""What load balancers, probes and readers ask without a key, with all that lies below."""


class ApiKeyGate:
    """Lets only requests with one of the keys through to `app`; with no keys at all, every request."""

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self._app = app
        self._digests = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        guarded = scope["type"] == "http" and self._digests and not _is_open(scope["path"])
        if not guarded:
            await self._app(scope, receive, send)
            return
        if (caller := self._known(HTTPConnection(scope))) is not None:
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, send)
            return
        error = NotAuthenticatedError(
            "a valid API key is needed: send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
        )
        await answer_error(Request(scope), error)(scope, receive, send)

    def _known(self, connection: HTTPConnection) -> str | None:
        """A name for whoever sent a valid key, which tells nothing of the key; None for anyone else."""
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        offered = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
        digest = sha256(offered.encode()).digest()
        # Every key is compared, each in constant time: the time taken tells nothing of them.
        matches = sum(hmac.compare_digest(digest, known) for known in self._digests)
        return f"key-{digest.hex()[:8]}" if matches else None


def _is_open(path: str) -> bool:
    return any(path == known or path.startswith(f"{known}/") for known in OPEN_PATHS)
