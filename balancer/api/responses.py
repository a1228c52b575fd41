"""How answers look: JSON, and every kind of failure in OpenAI's error shape."""

from __future__ import annotations

import json
from math import ceil, isfinite

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from balancer.errors import ChorusError, InvalidRequestError

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left before its answer; seen in metrics only."""


class ClientGoneError(Exception):
    """The client closed the connection before its answer."""


class JSONResponse(Response):
    """JSON in ASCII: an error may quote what the client sent, whatever characters that had."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The content as JSON."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_response(_: Request, error: Exception) -> Response:
    """A ChorusError as the client sees it."""
    assert isinstance(error, ChorusError)  # noqa: S101 - registered for these only
    headers = dict(error.headers)
    if error.retry_after is not None and isfinite(error.retry_after):
        headers["Retry-After"] = str(max(1, ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body(), error.status, headers)


def http_error_response(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, wrong method) in the same shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these only
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs for what there is"
    known = InvalidRequestError(message, code=error.detail.lower().replace(" ", "_"))
    return JSONResponse(known.body(), error.status_code, error.headers)


def client_gone_response(_: Request, __: Exception) -> Response:
    """Nobody reads it; the status is for the metrics."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def internal_error_response(_: Request, __: Exception) -> Response:
    """A defect of ours: the log has the trace, the client the request id to quote."""
    message = "internal error; quote the X-Request-Id of this answer to whoever runs this server"
    return JSONResponse(ChorusError(message).body(), 500)
