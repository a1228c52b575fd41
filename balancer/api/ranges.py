"""Byte ranges of files, as RFC 9110 has them, and their errors in the API's shape."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from balancer.api.responses import response_to
from balancer.errors import RangeNotSatisfiableError

_POSITIONS = r"(?:\d{1,19}-\d{0,19}|-\d{1,19})"
_RANGES = re.compile(rf"bytes=[ \t]*{_POSITIONS}(?:[ \t]*,[ \t]*{_POSITIONS})*[ \t]*", re.ASCII | re.IGNORECASE)
_RANGE = re.compile(r"(\d+)-(\d+)", re.ASCII)


class RangeRequests:
    """Wraps an app that serves files with Starlette's FileResponse.

    A Range header that is not valid is ignored, as RFC 9110, 14.2, allows; Starlette responds with 400. Where a range
    is outside of the file, Starlette refuses all of them: the others are sent, and only if there are none, the response
    is a 416 in the API's error shape.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        value = Headers(scope=scope).get("range") if scope["type"] == "http" else None
        if value is None:
            await self._app(scope, receive, send)
            return
        if not is_valid_range(value):
            await self._app(_with_range(scope, None), receive, send)
            return
        unsatisfiable: Headers | None = None

        async def send_unless_unsatisfiable(message: Message) -> None:
            nonlocal unsatisfiable
            if message["type"] == "http.response.start" and message["status"] == RangeNotSatisfiableError.status:
                unsatisfiable = Headers(raw=message["headers"])
            elif unsatisfiable is None:
                await send(message)

        await self._app(scope, receive, send_unless_unsatisfiable)
        if unsatisfiable is None:
            return
        size = int(unsatisfiable.get("content-range", "*/0").rpartition("/")[2])
        if (ranges := satisfiable_ranges(value, size)) is not None:
            await self._app(_with_range(scope, ranges), receive, send)
        else:
            await response_to(_outside(size), scope)(scope, receive, send)


class RangeFileResponse(FileResponse):
    """A file, whole or in the requested ranges."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await RangeRequests(super().__call__)(scope, receive, send)


def is_valid_range(value: str) -> bool:
    """Whether a Range header is a list of byte ranges, none of which ends before it begins."""
    if _RANGES.fullmatch(value) is None:
        return False
    return all(int(first) <= int(last) for first, last in _RANGE.findall(value))


def satisfiable_ranges(value: str, size: int) -> str | None:
    """A valid Range header without the ranges outside of a file of `size` bytes; None if no range is left.

    The last N bytes of a file that has fewer are the whole file (RFC 9110, 14.1.2).
    """
    ranges = []
    for part in value.partition("=")[2].split(","):
        first, _, last = part.strip().partition("-")
        if first and int(first) < size:
            ranges.append(f"{first}-{last}")
        elif not first and int(last) and size:
            ranges.append(f"-{min(int(last), size)}")
    return f"bytes={','.join(ranges)}" if ranges else None


def one_range(value: str, size: int) -> range | None:
    """The positions that a Range header with one range asks for, of `size` bytes; None if it is to be ignored.

    Raises RangeNotSatisfiableError.
    """
    if not is_valid_range(value) or "," in value:
        return None
    satisfiable = satisfiable_ranges(value, size)
    if satisfiable is None:
        raise _outside(size)
    first, _, last = satisfiable.removeprefix("bytes=").partition("-")
    if not first:
        return range(size - int(last), size)
    return range(int(first), min(int(last) + 1, size) if last else size)


def _outside(size: int) -> RangeNotSatisfiableError:
    return RangeNotSatisfiableError(
        f"the file has {size} bytes, and the requested ranges are outside of it",
        headers={"Content-Range": f"bytes */{size}"},
    )


def _with_range(scope: Scope, value: str | None) -> Scope:
    """The scope with this Range header; with none, if `value` is None."""
    headers = [header for header in scope["headers"] if header[0] != b"range"]
    if value is not None:
        headers.append((b"range", value.encode("ascii")))
    return dict(scope, headers=headers)
