from __future__ import annotations

import pytest

from balancer.errors import ChorusError, HeadTooLargeError, InvalidHttpError, UriTooLongError
from balancer.http.head import check_beginning, check_headers, check_size, find_end, without_upgrade
from balancer.settings.http import HttpSettings

LIMITS = HttpSettings(max_head_bytes=2000, max_header_bytes=500, max_headers=10)
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


def test_the_end_is_the_empty_line() -> None:
    assert find_end(HEAD) == -1
    assert find_end(HEAD + b"\r\nbody") == len(HEAD) + 2
    assert find_end(HEAD + b"\r\n", len(HEAD) - 1) == len(HEAD) + 2
    assert find_end(b"GET / HTTP/1.1\n\n") == 16


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (HEAD + b"a: b\r\n" * 9, None),
        (HEAD + b"a: b\r\n" * 10, HeadTooLargeError),
        (HEAD + b"a: " + b"b" * 490 + b"\r\n", None),
        (HEAD + b"a: " + b"b" * 500 + b"\r\n", HeadTooLargeError),
        (HEAD + (b"a: " + b"b" * 490 + b"\r\n") * 5, HeadTooLargeError),
        (b"GET /" + b"a" * 500 + b" HTTP/1.1\r\n", UriTooLongError),
    ],
)
def test_sizes(head: bytes, error: type[ChorusError] | None) -> None:
    if error is None:
        check_size(head + b"\r\n", LIMITS)
    else:
        with pytest.raises(error):
            check_size(head + b"\r\n", LIMITS)


def test_an_incomplete_head_begins_as_one_and_has_a_size() -> None:
    for head in (b"G", b"GET", b"M-SEARCH ", HEAD):
        check_beginning(head, LIMITS)
    for head in (b"\x16\x03\x01", b"get / ", b"A" * 21, b"\0"):
        with pytest.raises(InvalidHttpError):
            check_beginning(head, LIMITS)
    with pytest.raises(HeadTooLargeError):
        check_beginning(HEAD + b"a:\r\n" * 600, LIMITS)


def test_upgrade_is_left_out_and_nothing_else() -> None:
    head = HEAD + b"uPgrade: h2c\r\nX-Upgrade: a\r\nConnection: Upgrade\r\n\r\n"
    assert without_upgrade(head) == head.replace(b"uPgrade: h2c\r\n", b"")
    assert without_upgrade(HEAD) is HEAD


def test_headers_that_are_accepted() -> None:
    assert check_headers("1.0", []) == (False, None)
    host = (b"host", b"[::1]:5000")
    assert check_headers("1.1", [host, (b"content-length", b"5"), (b"expect", b"100-Continue")]) == (True, 5)
    assert check_headers("1.0", [(b"expect", b"100-continue")]) == (False, None)
