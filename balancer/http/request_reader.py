"""Reads one request at a time with llhttp, and nothing behind it."""

from __future__ import annotations

import urllib.parse
from functools import cached_property
from typing import NamedTuple

import httptools

from balancer.errors import InvalidHttpError
from balancer.http.head import check_headers, check_size, without_upgrade
from balancer.settings.http import HttpSettings

FRAMING_BYTES = 16
"""Bytes of chunked framing that a byte of the body may have; trailers and extensions beyond it are limited."""


class RequestHead(NamedTuple):
    """The line and the headers of a request."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    http_version: str
    headers: list[tuple[bytes, bytes]]
    """The names are in lower case."""
    keep_alive: bool
    """Whether another request may follow. Not after HTTP/1.0: its `keep-alive` need not be honoured (RFC 9112, 9.3)."""
    expects_continue: bool


class BodyPart(NamedTuple):
    """A part of a body."""

    content: bytes
    rest: bytes
    """Bytes behind the request."""


class RequestReader:
    """Reads a head, then its body, then the next head.

    The end of a chunked body is known to the parser alone, which reads on behind it: `surplus` is true then, and no
    further request can be read.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self.complete = False
        """Whether the request has been received to its end."""
        self.surplus = False
        self._head_complete = False
        self._keep_alive = False
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._missing: int | None = None
        """Bytes of the body to come; None: it is chunked."""
        self._overhead = 0
        """Bytes of a chunked body beyond its content and common framing."""

    @cached_property
    def _parser(self) -> httptools.HttpRequestParser:
        # Made when it is needed: a connection without a request is to cost little.
        parser = httptools.HttpRequestParser(self)
        # The first request is answered even where others follow one that says `Connection: close`.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def read_head(self, head: bytes) -> RequestHead:
        """Read a whole head. Raises ChorusError."""
        check_size(head, self._settings)
        self.complete = self._head_complete = False
        self._target, self._headers, self._overhead = b"", [], 0
        try:
            self._parser.feed_data(without_upgrade(head))
            url = httptools.parse_url(self._target)
            raw_path = url.path or b""
            path = raw_path.decode("ascii")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError) as error:
            raise InvalidHttpError("this is not a valid HTTP/1.1 request") from error
        if not raw_path or not self._head_complete:
            raise InvalidHttpError("this is not a valid HTTP/1.1 request")
        http_version = self._parser.get_http_version()
        checked = check_headers(http_version, self._headers)
        self._missing = checked.content_length
        return RequestHead(
            method=self._parser.get_method().decode("ascii"),
            path=urllib.parse.unquote(path) if "%" in path else path,
            raw_path=raw_path,
            query=url.query or b"",
            http_version=http_version,
            headers=self._headers,
            keep_alive=http_version == "1.1" and self._keep_alive,
            expects_continue=checked.expects_continue,
        )

    def read_body(self, data: bytes) -> BodyPart:
        """Read a part of the body. Raises InvalidHttpError."""
        part = data if self._missing is None else data[: self._missing]
        try:
            self._parser.feed_data(part)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:  # else the fault is behind the request
                raise InvalidHttpError("the body is not what the headers say") from error
        content = b"".join(self._body)
        self._body.clear()
        if self._missing is not None:
            self._missing -= len(part)
            return BodyPart(content, data[len(part) :])
        self._overhead = max(0, self._overhead + len(data) - len(content) * FRAMING_BYTES)
        if self._overhead > self._settings.max_head_bytes and not self.complete:
            raise InvalidHttpError("the body has too many bytes that are no content")
        return BodyPart(content, b"")

    def release(self) -> None:
        """End the reference from the parser to this reader and back."""
        self.__dict__.pop("_parser", None)

    # The parser's events

    def on_message_begin(self) -> None:
        """A request begins; or another one behind a chunked body."""
        self.surplus = self.complete

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if not self._head_complete:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. The trailers of a chunked body are ignored: they are none."""
        if not self._head_complete:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head has been parsed."""
        if not self._head_complete:
            self._head_complete = True
            self._keep_alive = self._parser.should_keep_alive()  # forgotten when the message is complete

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self.complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request has been parsed."""
        self.complete = True
