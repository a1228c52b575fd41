"""Shared by the routes: reads JSON bodies within a size limit, and notices when the client disconnects."""

from __future__ import annotations

import asyncio
import json
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from math import inf, nan
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from balancer.access.caller import caller_of
from balancer.api.headers import header
from balancer.api.responses import ClientGoneError
from balancer.audio.held_audio import Budget
from balancer.errors import (
    BodyTooLargeError,
    InvalidRequestError,
    MemoryFullError,
    QueueFullError,
    UnsupportedMediaTypeError,
)
from balancer.requests.cache_control import CacheUse
from balancer.requests.speech_request import RequestContext
from balancer.runtime.thread_pool import PoolFullError, ThreadPool, with_rests

Body = TypeVar("Body", bound=BaseModel)
T = TypeVar("T")

DEADLINE_HEADER = b"x-deadline-ms"

CLIENT_WATCH = "chorus.client_watch"
"""The extension of the ASGI scope by which the server tells of a client that leaves: refers to a ClientWatch."""

LINES_AT_A_TIME = 500
"""Lines of a batch that are parsed before another batch has its turn."""

PARSED_BYTES = 4
"""Bytes of memory that a body of JSON lines takes for each of its own until its jobs are stored, at most."""
LINE_BYTES = 5 * 1024
"""Bytes that each line takes besides, however short it is."""
MAX_PARSED_SHARE = 0.5
"""Part of the memory that batches may take: the rest is for audio, which would else lie in files."""

JSON_LINES_TYPES = ("application/x-ndjson", "application/jsonl", "application/json-lines", "application/json")

RETRY_SECONDS = 5.0
"""Retry-After of a body that was refused because too much is being received or read."""

_ALL_CALLERS = "all"

MAX_QUOTED_NAME = 100
"""Characters of an unknown field's name that an error message quotes. No known field has a longer name."""


def can_stream(request: Request) -> bool:
    """Whether the client would notice that a response without a length breaks off: HTTP/1.0 has no chunks."""
    return bool(request.scope["http_version"] != "1.0")


async def read_json(request: Request, schema: type[Body], limit: int, memory: Budget) -> Body:
    """The JSON body, validated as `schema`. At most `limit` bytes are read, which `memory` counts meanwhile.

    Raises UnsupportedMediaTypeError, BodyTooLargeError, MemoryFullError, InvalidRequestError.
    """
    media_type = media_type_of(request)
    if media_type != "application/json":
        raise UnsupportedMediaTypeError(
            f"the body must be JSON: send Content-Type: application/json (got {media_type or 'none'})"
        )
    with BodyMemory(memory, caller_of(request).identity) as taken:
        return validate_body(_parse(await _read_body(request, limit, taken)), schema)


class JsonLinesReader:
    """Reads bodies of JSON lines, of at most `max_bytes` and `max_lines`, in a thread of its own.

    `memory` counts the bodies, and what is made of them.
    """

    def __init__(self, memory: Budget, *, max_bytes: int, max_lines: int) -> None:
        self._memory = memory
        self._parsed = Budget(memory.limit, MAX_PARSED_SHARE)
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._pool = ThreadPool("batches", 1)

    @asynccontextmanager
    async def read(
        self, request: Request, schema: type[Body], check: Callable[[Body], None] = lambda _: None
    ) -> AsyncIterator[list[Body]]:
        """The lines, each validated as `schema` and by `check`; empty lines are skipped.

        The body and its lines are counted until the end of the block.

        Raises QueueFullError and the errors of `read_json`; an invalid line is named in the message.
        """
        media_type = media_type_of(request)
        if media_type not in JSON_LINES_TYPES:
            raise UnsupportedMediaTypeError(
                f"the body must be JSON lines: send Content-Type: application/x-ndjson (got {media_type or 'none'})"
            )
        with (
            BodyMemory(self._memory, caller_of(request).identity) as taken,
            BodyMemory(self._parsed, _ALL_CALLERS) as parsed,
        ):
            content = (await _read_body(request, self._max_bytes, taken)).rstrip()
            # A line of a body that is too long costs memory and time, even if it is refused.
            if (line_ends := content.count(b"\n")) >= self._max_lines:
                raise BodyTooLargeError(f"the body has more than {self._max_lines} lines; send several batches")
            size = (PARSED_BYTES - 1) * len(content) + LINE_BYTES * (line_ends + 1)
            parsed.take(size)
            taken.take(size)
            bodies: list[Body] = []
            try:
                await self._validate(content.split(b"\n"), schema, check, bodies)
                yield bodies
            finally:
                self._pool.start(partial(_let_go, bodies))

    async def _validate(
        self, lines: list[bytes], schema: type[Body], check: Callable[[Body], None], bodies: list[Body]
    ) -> None:
        """Fill `bodies`."""

        def parse(first: int) -> None:
            for number, line in enumerate(with_rests(lines[first : first + LINES_AT_A_TIME]), start=first + 1):
                if not line.strip():
                    continue
                try:
                    bodies.append(validate_body(_parse(line), schema))
                    check(bodies[-1])
                except InvalidRequestError as error:
                    raise error.with_location(f"line {number}") from error

        try:
            await self._pool.run(partial(parse, 0))
        except PoolFullError as error:
            raise QueueFullError(
                "too many batches are being read; try again later", retry_after=RETRY_SECONDS
            ) from error
        for first in range(LINES_AT_A_TIME, len(lines), LINES_AT_A_TIME):  # batches of several callers take turns
            await self.run(partial(parse, first))
        if not bodies:
            raise InvalidRequestError("the body is empty; send one JSON object per line")

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work` on a whole batch, which takes too long for the event loop.

        A batch of which a part was read is not refused any more: its jobs may be accepted already.
        """
        return await self._pool.run(work, begun=True)

    def close(self) -> None:
        """End the thread; does not wait for it."""
        self._pool.close()


def _let_go(items: list[Any]) -> None:
    """Empty a list one by one: thousands of objects at once would keep all threads from the interpreter."""
    while items:
        items.pop()


def validate_body(value: Any, schema: type[Body]) -> Body:
    """A JSON value, validated as `schema`. Raises InvalidRequestError."""
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object", code="invalid_json")
    for name in value:
        if not name.isprintable() or len(name) > MAX_QUOTED_NAME:
            quoted = ascii(name[:MAX_QUOTED_NAME])[1:-1]
            raise InvalidRequestError(f"unknown field '{quoted}'", param=quoted, code="unknown_parameter")
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from error


def base_url(request: Request, public_url: str | None) -> str:
    """The client's address of this server (`public_url`, if given), without a slash at its end."""
    return (public_url or f"{request.url.scheme}://{request.url.netloc}").rstrip("/")


def request_context(request: Request) -> RequestContext:
    """The context of a speech request. Raises InvalidRequestError if the deadline header is invalid."""
    caller = caller_of(request)
    state = request.scope["state"]
    return RequestContext(
        request_id=state["request_id"],
        caller=caller.name,
        caller_id=caller.identity,
        arrived=asyncio.get_running_loop().time(),
        deadline_ms=_deadline(header(request.scope, DEADLINE_HEADER)),
        log_fields=state["log_fields"],
        cache=CacheUse.of(header(request.scope, b"cache-control")),
    )


def _deadline(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = nan
    if not 0 < milliseconds < inf:  # this form also refuses NaN
        raise InvalidRequestError(
            "the header X-Deadline-Ms must be a number of milliseconds greater than 0", param="X-Deadline-Ms"
        )
    return milliseconds


def media_type_of(request: Request) -> str:
    """The media type of the body in lower case, without its parameters; empty if there is none."""
    return (header(request.scope, b"content-type") or "").partition(";")[0].strip().lower()


class BodyMemory:
    """The memory that a body takes of its caller's share. The end of the block gives it back."""

    def __init__(self, budget: Budget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self._taken = 0

    def __enter__(self) -> Self:
        """Nothing is taken yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what was taken, which is nothing if the body failed at its beginning."""
        if self._taken:
            self._budget.release(self._caller, self._taken)

    def take(self, size: int) -> None:
        """Take `size` bytes more. Raises MemoryFullError."""
        if size and not self._budget.take(self._caller, size):
            raise MemoryFullError(
                "the memory for requests, yours or that of all, is in use; try again, or send less at once",
                retry_after=RETRY_SECONDS,
            )
        self._taken += size


async def _read_body(request: Request, limit: int, memory: BodyMemory) -> bytes:
    check_body_head(request, limit)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise body_too_large(limit)
        memory.take(len(chunk))
        body += chunk
    return bytes(body)


def check_body_head(request: Request, limit: int) -> None:
    """Refuse a body that is compressed, or said to be larger than `limit` bytes.

    Raises UnsupportedMediaTypeError, BodyTooLargeError.
    """
    encoding = header(request.scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaTypeError(
            "the body is compressed; send it without Content-Encoding", headers={"Accept-Encoding": "identity"}
        )
    declared = header(request.scope, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise body_too_large(limit)


def body_too_large(limit: int) -> BodyTooLargeError:
    """The error of a body of more than `limit` bytes."""
    return BodyTooLargeError(f"the body is larger than {limit} bytes; send a shorter text")


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at")
        message = f"the body is not JSON: {reason} at line {error.lineno}, column {error.colno}"
    except ValueError:
        message = "a number in the body has too many digits"
    except RecursionError:
        message = "the body is nested too deeply"
    raise InvalidRequestError(message, code="invalid_json")


def _invalid(error: ValidationError) -> InvalidRequestError:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    names = [str(detail["loc"][0]) if detail["loc"] else None for detail in details]
    messages = (
        f"{name}: {_plain(detail['msg'])}" if name else _plain(detail["msg"])
        for name, detail in zip(names, details, strict=True)
    )
    return InvalidRequestError("; ".join(dict.fromkeys(messages)), param=names[0])


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


class ClientWatch(Protocol):
    """Tells whether the client of one request is still there, and can break its connection off."""

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """Call `on_gone` when the client closes the connection, or at once if it has; None: no longer."""

    def abort(self) -> None:
        """Break the connection off, so that the client does not take a part of a response for the whole."""


class WhileConnected:
    """Cancels its block when the client closes the connection, and raises ClientGoneError then.

    To be used once the body has been read. Every request for speech runs in such a block: a generator, and a task that
    waits for ASGI's `http.disconnect`, would take longer.
    """

    def __init__(self, request: Request) -> None:
        self._client: ClientWatch = request.scope["extensions"][CLIENT_WATCH]()
        self._guard = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        """Begin to watch the client."""
        await self._guard.__aenter__()
        self._client.watch(self._cancel)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Watch no longer. Raises ClientGoneError."""
        self._client.watch(None)
        try:
            await self._guard.__aexit__(kind, error, traceback)
        except TimeoutError as gone:
            raise ClientGoneError from gone

    def _cancel(self) -> None:
        self._guard.reschedule(asyncio.get_running_loop().time())
