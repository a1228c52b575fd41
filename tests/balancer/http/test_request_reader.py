from __future__ import annotations

import pytest

from balancer.errors import InvalidHttpError
from balancer.http.request_reader import RequestReader
from balancer.settings.http import HttpSettings

HOST = b"Host: localhost\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def reader() -> RequestReader:
    return RequestReader(HttpSettings())


def test_a_head_without_a_body(reader: RequestReader) -> None:
    head = reader.read_head(b"GET /a%20b?c=d HTTP/1.1\r\n" + HOST + b"X-A: b\r\n\r\n")
    assert (head.method, head.path, head.raw_path, head.query) == ("GET", "/a b", b"/a%20b", b"c=d")
    assert head.headers == [(b"host", b"localhost"), (b"x-a", b"b")]
    assert head.keep_alive
    assert reader.complete
    assert not reader.read_head(b"GET / HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n").keep_alive


def test_a_body_of_known_length_ends_where_it_ends(reader: RequestReader) -> None:
    for _ in range(2):
        reader.read_head(b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n")
        assert not reader.complete
        assert reader.read_body(b"ab") == (b"ab", b"")
        assert reader.read_body(b"cdeGET /") == (b"cde", b"GET /")
        assert reader.complete
        assert not reader.surplus


@pytest.mark.parametrize(("behind", "surplus"), [(b"", False), (b"\r\n", False), (b"GET /", True), (b"\x00", True)])
def test_a_chunked_body_and_what_is_behind_it(reader: RequestReader, behind: bytes, surplus: bool) -> None:
    head = reader.read_head(CHUNKED)
    assert reader.read_body(b"2\r\nab\r\n") == (b"ab", b"")
    assert reader.read_body(b"1;x=y\r\nc\r\n0\r\nX-Trailer: a\r\n\r\n" + behind) == (b"c", b"")
    assert reader.complete
    assert reader.surplus is surplus
    assert (b"x-trailer", b"a") not in head.headers


def test_tiny_chunks_are_read_and_endless_framing_is_not(reader: RequestReader) -> None:
    reader.read_head(CHUNKED)
    assert len(reader.read_body(b"1\r\na\r\n" * 50_000).content) == 50_000
    reader.read_body(b"1;" + b"x" * 60_000)
    with pytest.raises(InvalidHttpError):
        reader.read_body(b"x" * 60_000)
