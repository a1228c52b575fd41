"""What every surface shares: reading a JSON body within its limit, and noticing that the client left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf, nan
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from balancer.access.caller import caller_of
from balancer.api.responses import ClientGoneError
from balancer.errors import BodyTooLargeError, InvalidRequestError, UnsupportedMediaTypeError
from balancer.requests.cache_control import CacheUse
from balancer.requests.speech_request import RequestContext

Body = TypeVar("Body", bound=BaseModel)

DEADLINE_HEADER = "x-deadline-ms"

LINES_TYPES = ("application/x-ndjson", "application/jsonl", "application/json-lines", "application/json")

LONGEST_NAME = 100
"""Characters of a field's name: answers quote it."""


async def read(request: Request, schema: type[Body], limit: int) -> Body:
    """The body as `schema`, read no further than `limit` bytes. Raises InvalidRequestError or one below it."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaTypeError(
            f"the body must be JSON: send Content-Type: application/json (got {media_type or 'none'})"
        )
    return validated(_parse(await _receive(request, limit)), schema)


async def read_lines(
    request: Request, schema: type[Body], limit: int, check: Callable[[Body], None] = lambda _: None
) -> list[Body]:
    """A body of JSON lines, each as `schema`, and checked; empty ones do not count. Raises as `read`, with the line."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in LINES_TYPES:
        raise UnsupportedMediaTypeError(
            f"the body must be JSON lines: send Content-Type: application/x-ndjson (got {media_type or 'none'})"
        )
    content = await _receive(request, limit)

    def parse() -> list[Body]:
        found = []
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                found.append(validated(_parse(line), schema))
                check(found[-1])
            except InvalidRequestError as error:
                raise error.with_location(f"line {number}") from error
        return found

    # Thousands of lines would hold up everybody else.
    if not (bodies := await asyncio.to_thread(parse)):
        raise InvalidRequestError("the body has no lines; send one JSON object in each")
    return bodies


def validated(value: Any, schema: type[Body]) -> Body:
    """A JSON value as `schema`. Raises InvalidRequestError."""
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object", code="invalid_json")
    for name in value:
        if not name.isprintable() or len(name) > LONGEST_NAME:
            quoted = ascii(name[:LONGEST_NAME])[1:-1]
            raise InvalidRequestError(f"unknown field '{quoted}'", param=quoted, code="unknown_parameter")
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from error


def request_context(request: Request) -> RequestContext:
    """Who asks, and by when. Raises InvalidRequestError."""
    return RequestContext(
        request_id=request.state.request_id,
        caller=caller_of(request).name,
        arrived=asyncio.get_running_loop().time(),
        deadline_ms=_deadline(request.headers.get(DEADLINE_HEADER)),
        log_fields=request.state.log_fields,
        cache=CacheUse.of(request.headers.get("cache-control")),
    )


def _deadline(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = nan
    if not 0 < milliseconds < inf:  # so put, it refuses NaN, too
        raise InvalidRequestError(
            "the header X-Deadline-Ms must be a number of milliseconds above 0", param="X-Deadline-Ms"
        )
    return milliseconds


async def _receive(request: Request, limit: int) -> bytes:
    too_large = BodyTooLargeError(f"the body is larger than {limit} bytes; send a shorter text")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at")
        message = f"the body is not JSON: {reason} at line {error.lineno}, column {error.colno}"
    except ValueError:
        message = "the body has a number of too many digits"
    except RecursionError:
        message = "the body is nested too deeply"
    raise InvalidRequestError(message, code="invalid_json")


def _invalid(error: ValidationError) -> InvalidRequestError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    names = [str(fault["loc"][0]) if fault["loc"] else None for fault in faults]
    messages = (
        f"{name}: {_plain(fault['msg'])}" if name else _plain(fault["msg"])
        for name, fault in zip(names, faults, strict=True)
    )
    return InvalidRequestError("; ".join(dict.fromkeys(messages)), param=names[0])


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """A block that is cancelled, and ends with ClientGoneError, when the client closes the connection.

    For after the body has been read: from then on the server's next message can only be the disconnect.
    """
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        guard.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as guard:
            watcher = asyncio.create_task(watch())
            try:
                yield
            finally:
                watcher.cancel()
    except TimeoutError as error:
        raise ClientGoneError from error
