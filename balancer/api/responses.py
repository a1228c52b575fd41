"""JSON responses, and the exception handlers that turn every error into OpenAI's error shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil, isfinite
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from balancer.api.models.error import Error
from balancer.errors import ChorusError, InvalidRequestError

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected before its response. It appears in metrics and logs only."""


class ClientGoneError(Exception):
    """The client closed the connection before the response was sent."""


class JSONResponse(Response):
    """JSON in ASCII: an error may quote input of the client that UTF-8 cannot encode, such as a lone surrogate."""

    media_type = "application/json"

    def render(self, content: BaseModel | Mapping[str, Any]) -> bytes:
        """See `to_json`."""
        return to_json(content)


def to_json(content: BaseModel | Mapping[str, Any]) -> bytes:
    """`content` as ASCII JSON. Raises ValueError on NaN and infinity."""
    if isinstance(content, BaseModel):
        content = json_object(content)
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def json_object(model: BaseModel) -> dict[str, Any]:
    """A response model as a JSON object. Fields that were not set are left out."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def error_response(request: Request, error: Exception) -> Response:
    """The exception handler for ChorusError."""
    assert isinstance(error, ChorusError)  # noqa: S101 - registered for this class only
    return response_to(error, request.scope)


def response_to(error: ChorusError, scope: Scope | None = None) -> Response:
    """The response to an error, with Retry-After and WWW-Authenticate where they apply.

    The log line of the request with this `scope` tells the error.
    """
    if scope is not None:
        _note(error, scope)
    headers = dict(error.headers)
    if error.retry_after is not None and isfinite(error.retry_after):
        headers["Retry-After"] = str(max(1, ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(Error.of(error), error.status, headers)


def _note(error: ChorusError, scope: Scope) -> None:
    """Adds the error to the log line of a request."""
    fields = scope.get("state", {}).get("log_fields")
    if fields is not None:
        fields.code, fields.param = error.code, error.param


def http_error_response(request: Request, error: Exception) -> Response:
    """The response to an error of Starlette's own (404, 405), in the same shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs for the available endpoints"
    invalid = InvalidRequestError(message, code=error.detail.lower().replace(" ", "_"))
    _note(invalid, request.scope)
    return JSONResponse(Error.of(invalid), error.status_code, error.headers)


def client_gone_response(_: Request, __: Exception) -> Response:
    """A response for the access log and metrics only: the client has disconnected."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def internal_error_response(request: Request, _: Exception) -> Response:
    """The response to an unexpected exception. The log has the traceback; the client gets only the request id."""
    message = "internal error; report the X-Request-Id of this response to the operator of this server"
    return response_to(ChorusError(message), request.scope)
