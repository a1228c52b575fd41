"""The head of an HTTP/1.1 request: where it ends, how large it may be, and which headers RFC 9110 and 9112 refuse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from balancer.errors import ExpectationFailedError, HeadTooLargeError, InvalidHttpError, UriTooLongError
from balancer.settings.http import HttpSettings

_END = re.compile(rb"\n\r?\n")
"""The empty line. A line that ends without CR is found, too, so that the parser can refuse it at once."""

_BEGINNING = re.compile(rb"[A-Z-]{1,20}(?: |\Z)")
"""The beginning of every request. TLS and other protocols begin otherwise."""

_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]{0,5})?")

_CHECKED = frozenset({b"host", b"expect", b"content-length"})


class CheckedHead(NamedTuple):
    """Facts of a head that RFC 9110 and 9112 accept."""

    expects_continue: bool
    content_length: int | None
    """None: the body is chunked, or there is none."""


def find_end(data: bytes | bytearray, start: int = 0) -> int:
    """The position behind the empty line that ends a head, searched from `start`; -1 if there is none yet."""
    found = _END.search(data, start)
    return -1 if found is None else found.end()


def check_beginning(data: bytes | bytearray, limits: HttpSettings) -> None:
    """Check a head that has not ended yet. Raises InvalidHttpError, HeadTooLargeError, UriTooLongError."""
    if _BEGINNING.match(data) is None:
        raise InvalidHttpError("this is not an HTTP/1.1 request")
    if len(data) > limits.max_head_bytes:
        check_size(bytes(data), limits)


def check_size(head: bytes, limits: HttpSettings) -> None:
    """Check the size of a head and the number of its headers. Raises HeadTooLargeError, UriTooLongError."""
    if len(head) > limits.max_header_bytes:
        request_line, *headers = head.split(b"\n")
        if len(request_line) > limits.max_header_bytes:
            raise UriTooLongError(f"the request line is larger than {limits.max_header_bytes} bytes")
        if any(len(header) > limits.max_header_bytes for header in headers):
            raise HeadTooLargeError(f"a header is larger than {limits.max_header_bytes} bytes")
    if len(head) > limits.max_head_bytes:
        raise HeadTooLargeError(f"the headers are larger than {limits.max_head_bytes} bytes in all")
    if head.count(b"\n") - 2 > limits.max_headers:
        raise HeadTooLargeError(f"there are more than {limits.max_headers} headers")


def without_upgrade(head: bytes) -> bytes:
    """The head without `Upgrade`, which a server may ignore; the parser would take the body for another protocol."""
    return _UPGRADE.sub(b"", head) if b"upgrade:" in head.lower() else head


def check_headers(http_version: str, headers: Sequence[tuple[bytes, bytes]]) -> CheckedHead:
    """Check the headers, whose names are in lower case. Raises InvalidHttpError, ExpectationFailedError."""
    if http_version not in ("1.1", "1.0"):
        raise InvalidHttpError(f"HTTP/{http_version} is not offered; send HTTP/1.1")
    hosts, expects_continue, content_length = 0, False, None
    for name, value in headers:
        if name not in _CHECKED:
            continue
        if name == b"host":
            hosts += 1
            if _HOST.fullmatch(value) is None:
                raise InvalidHttpError("the header Host is not a host with an optional port")
        elif name == b"content-length":
            content_length = int(value)
        elif http_version == "1.1":
            if value.strip().lower() != b"100-continue":
                raise ExpectationFailedError("the only supported Expect value is 100-continue")
            expects_continue = True
    if hosts > 1 or (hosts == 0 and http_version == "1.1"):
        raise InvalidHttpError("a request needs exactly one header Host")
    return CheckedHead(expects_continue, content_length)
