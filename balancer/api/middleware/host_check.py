"""Refuses requests for other servers and from foreign web pages, where no API key keeps strangers out."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from balancer.access.host_names import HostNames
from balancer.access.key_ring import KeyRing
from balancer.api.headers import header
from balancer.api.responses import response_to
from balancer.errors import ChorusError, MisdirectedRequestError, NotAllowedError

SPEAKING_GETS = ("/tts",)
"""Paths of which a GET has work done: a foreign page could have it by `<audio src>`, which sends no Origin."""


class HostCheckMiddleware:
    """Passes a request on to `app` if its Host and Origin are this server's, or if API keys are required.

    `names` are the server's names; None: every name is.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, names: HostNames | None) -> None:
        self._app = app
        self._keys = keys
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 421 or 403."""
        fault = None if self._names is None or scope["type"] != "http" else _fault(scope, self._names)
        if fault is None or self._keys.key_required:
            await self._app(scope, receive, send)
        else:
            await response_to(fault, scope)(scope, receive, send)


_FOREIGN_PAGE = (
    "a web page of another origin may not use this server without an API key: require one, or add its origin to "
    "CHORUS_CORS_ORIGINS"
)


def _fault(scope: Scope, names: HostNames) -> ChorusError | None:
    for name, value in scope["headers"]:
        if name == b"host" and not names.names_host(value):
            return MisdirectedRequestError(
                "this server has no such name: without API keys it answers only to loopback names, to the host of "
                "CHORUS_PUBLIC_URL and to CHORUS_ALLOWED_HOSTS"
            )
        if name == b"origin" and not names.names_origin(value):
            return NotAllowedError(_FOREIGN_PAGE)
    if scope["path"] in SPEAKING_GETS and scope["method"] in ("GET", "HEAD") and _is_embedded(scope, names):
        return NotAllowedError(_FOREIGN_PAGE)
    return None


def _is_embedded(scope: Scope, names: HostNames) -> bool:
    """Whether a foreign page has the browser send the request, or a page that does not say where it is from."""
    referrer = header(scope, b"referer")
    if referrer is None:
        return header(scope, b"sec-fetch-site") == "cross-site"
    scheme, separator, rest = referrer.partition("://")
    return not names.names_origin(f"{scheme}{separator}{rest.partition('/')[0]}".encode("latin-1"))
