"""Lets web pages of other origins use the server (CORS, as the Fetch standard has it)."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from balancer.api.headers import header
from balancer.settings.access import ANY_ORIGIN

EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Location",
    "RateLimit-Limit",
    "RateLimit-Policy",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Audio-Seconds",
    "X-Cache",
    "X-Cache-Segments",
    "X-Flaws",
    "X-Ignored-Fields",
    "X-Request-Id",
    "X-Retakes",
)
"""Headers of responses that a page may read besides those that every page may."""

MAX_AGE_SECONDS = 7200
"""For how long a browser may remember the answer to a preflight; no browser but Firefox remembers longer."""


class CorsMiddleware:
    """Wraps the authentication, for a preflight has no key, and its refusals must be readable.

    Starlette's middleware answers to the allowed `origins`. It sees no others, whose requests it would answer with a
    part of its headers: they are treated as if there were no CORS. No origin may send cookies, which mean nothing here.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._any = ANY_ORIGIN in self._origins
        self._cors = CORSMiddleware(
            app,
            allow_origins=tuple(origins),
            # Whatever a page sends is refused where it belongs, in the API's error shape.
            allow_methods=("*",),
            # OpenAI's client for browsers adds a dozen of its own, which no list here could keep up with.
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
            # From the internet into a private network: only pages that the operator knows.
            allow_private_network=not self._any,
            max_age=MAX_AGE_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer a preflight."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_vary(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("vary") != "Origin":
                    # Also without an Origin: a cache must not give this answer to a page that needs the headers.
                    headers.add_vary_header("Origin")
            await send(message)

        origin = header(scope, b"origin")
        allowed = origin is not None and (self._any or origin in self._origins)
        await (self._cors if allowed else self._app)(scope, receive, send_with_vary)
