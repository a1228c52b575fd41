"""JSON responses, and the exception handlers that turn every error into OpenAI's error shape."""

from __future__ import annotations

import json
from math import ceil, isfinite

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from balancer.errors import ChorusError, InvalidRequestError

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected before its response. It appears in metrics and logs only."""


class ClientGoneError(Exception):
    """The client closed the connection before the response was sent."""


class JSONResponse(Response):
    """JSON in ASCII: an error may quote input of the client that UTF-8 cannot encode, such as a lone surrogate."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """`content` as ASCII JSON. Raises ValueError on NaN and infinity."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_response(_: Request, error: Exception) -> Response:
    """The response to a ChorusError, with Retry-After and WWW-Authenticate where they apply."""
    assert isinstance(error, ChorusError)  # noqa: S101 - registered for this class only
    headers = dict(error.headers)
    if error.retry_after is not None and isfinite(error.retry_after):
        headers["Retry-After"] = str(max(1, ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body(), error.status, headers)


def http_error_response(request: Request, error: Exception) -> Response:
    """The response to an error of Starlette's own (404, 405), in the same shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs for the available endpoints"
    body = InvalidRequestError(message, code=error.detail.lower().replace(" ", "_")).body()
    return JSONResponse(body, error.status_code, error.headers)


def client_gone_response(_: Request, __: Exception) -> Response:
    """A response for the access log and metrics only: the client has disconnected."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def internal_error_response(_: Request, __: Exception) -> Response:
    """The response to an unexpected exception. The log has the traceback; the client gets only the request id."""
    message = "internal error; report the X-Request-Id of this response to the operator of this server"
    return JSONResponse(ChorusError(message).body(), 500)
