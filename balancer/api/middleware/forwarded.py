"""Takes the client's address and scheme from a trusted proxy's headers."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from balancer.access.trusted_proxies import TrustedProxies

_SCHEMES = (b"http", b"https")


class ForwardedMiddleware:
    """Wraps the application; `X-Forwarded-For` and `X-Forwarded-Proto` of other peers than `proxies` are ignored."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        client = scope.get("client")
        if client is not None and client[0] in self._proxies:
            headers = scope["headers"]
            forwarded_for = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
            address = self._proxies.client_of(client[0], forwarded_for)
            if address != client[0]:
                scope["client"] = (address, 0)
            schemes = [value.strip().lower() for name, value in headers if name == b"x-forwarded-proto"]
            if schemes and schemes[-1] in _SCHEMES:
                scope["scheme"] = schemes[-1].decode("ascii")
        await self._app(scope, receive, send)
