"""Other paths under which clients look for the API: without `/v1`, with a slash at the end, by other servers' names."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

ALIASES = {
    "/audio/speech": "/v1/audio/speech",
    "/audio/voices": "/v1/audio/voices",
    "/audio/models": "/v1/audio/models",
    "/models": "/v1/models",
    "/v1/audio/speech/voices": "/v1/audio/voices",
    "/v1/health": "/health",
    "/healthz": "/health",
    "/readyz": "/ready",
}
"""Paths by those that clients call: a base URL without `/v1`, other servers' names, Kubernetes' habits."""


class PathsMiddleware:
    """Wraps the whole application, so that all of its parts see one path. A redirect would lose a POST's body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http":
            path: str = scope["path"]
            # Not one that is written as %2F: that is a part of a name.
            if len(path) > 1 and scope.get("raw_path", b"").partition(b"?")[0].endswith(b"/"):
                path = path.removesuffix("/")
            path = ALIASES.get(path, path)
            if path != scope["path"]:
                scope["path"], scope["raw_path"] = path, path.encode()
        await self._app(scope, receive, send)
