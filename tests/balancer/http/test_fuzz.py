"""Made-up and damaged HTTP messages on raw sockets: each gets an answer or a close, never a server error.

HTTP_FUZZ_EXAMPLES sets the number of messages.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.harness import Server, await_banner, serve_stub, wait_until
from tests.support.raw_http import BODY, RawConnection, connect

EXAMPLES = int(os.environ.get("HTTP_FUZZ_EXAMPLES", "300"))

PATIENCE_SECONDS = 0.02
"""Time for an answer, before the client closes its side."""

LOG_LINE = re.compile(
    r"[-\d]+ [:,\d]+ balancer INFO (?:[A-Z-]+ \S+ [1-4]\d\d|refused 4\d\d|ended connections)(?: [a-z_]+=\S+)*"
)

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "CONNECT", "TRACE", "PRI", "get", "")
TARGETS = (
    "/tts",
    "/tts-json",
    "/v1/audio/speech",
    "/queue",
    "/queue/batch",
    "/queue/1",
    "/status/1",
    "/audio/1",
    "/ready",
    "/metrics",
    "/docs",
    "/docs/assets/swagger-ui.css",
    "/docs/assets/%00",
    "/docs/assets/../../x",
    "/%ff?%ff",
    "/?a=b",
    "*",
    "//",
    "http://localhost/ready",
    "http://[::1",
    "localhost:80",
    "",
)
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1.1", "http/1.1", "")
HEADERS = (
    "Host: localhost",
    "Host: localhost:5000",
    "Host: [::1]:5000",
    "Host: evil.example",
    "Host:",
    "Host: a b",
    "Origin: http://localhost",
    "Origin: null",
    "Content-Type: application/json",
    "Content-Type: application/x-ndjson",
    "Content-Type: text/plain; charset=\xff",
    "Content-Encoding: gzip",
    "Expect: 100-continue",
    "Expect: nothing",
    "Connection: close",
    "Connection: Upgrade",
    "Connection: keep-alive, Upgrade, ,",
    "Upgrade: h2c",
    "Upgrade: websocket",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, identity",
    "Content-Length: 15",
    "Content-Length: 0",
    "Content-Length: 5, 5",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Range: bytes=0-10",
    "Range: bytes=9-2",
    "Range: bytes=999999999-",
    "Range: bytes=-0",
    "If-None-Match: *",
    "If-Modified-Since: yesterday",
    "X-Deadline-Ms: nan",
    "X-Forwarded-For: \x9b, unknown",
    "X-Request-Id: a b",
    "Idempotency-Key: a",
    "Accept: text/event-stream",
    " folded: value",
    "no colon",
    "space : before",
    ": nameless",
)
BODIES = (
    b"",
    BODY,
    b"f\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"f;x=y\r\n" + BODY + b"\r\n0\r\nHost: trailer\r\n\r\n",
    b"f\r\n" + BODY + b"\r\n0\r\n\r\nGET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"-1\r\n",
    b"0\r\n",
)

lines = st.builds(
    lambda method, target, version: f"{method} {target} {version}",
    st.sampled_from(METHODS),
    st.sampled_from(TARGETS),
    st.sampled_from(VERSIONS),
)
likely_lines = st.builds("{} {} HTTP/1.1".format, st.sampled_from(METHODS[:5]), st.sampled_from(TARGETS))
headers = st.lists(st.sampled_from(HEADERS), max_size=6)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A request that is valid in most parts, with damage in a few places."""
    request = (
        draw(st.one_of(likely_lines, lines)),
        *draw(st.one_of(headers, headers.map(lambda h: ["Host: localhost", *h]))),
    )
    body = draw(st.one_of(st.sampled_from(BODIES), st.binary(max_size=40)))
    end = draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n"]))
    message = bytearray(end.join([*request, "", ""]).encode("latin-1") + body)
    for _ in range(draw(st.integers(0, 2))):
        position = draw(st.integers(0, len(message)))
        length = draw(st.integers(0, 4))
        message[position : position + length] = draw(st.binary(max_size=4))
    return bytes(message[: draw(st.one_of(st.just(len(message)), st.integers(0, len(message))))]) * draw(
        st.sampled_from([1, 1, 1, 2])
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as running:
        await_banner(running)
        yield running


def statuses(connection: RawConnection) -> list[int]:
    """The statuses of all responses until the server closes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", connection.until_closed())]


def test_every_message_gets_an_answer_or_a_close_and_at_most_a_line_of_the_log(server: Server) -> None:
    log_before = len(server.log.read_text())
    requests = 0

    @settings(max_examples=EXAMPLES)
    @given(message=messages(), cut=st.integers(0, 200))
    def check(message: bytes, cut: int) -> None:
        nonlocal requests
        requests += 1 + message.count(b"HTTP/")
        with connect(server.url) as connection:
            connection.send(message[:cut])
            connection.send(message[cut:])
            select.select([connection.socket], [], [], PATIENCE_SECONDS)
            with suppress(OSError):  # the server may have been faster
                connection.socket.shutdown(socket.SHUT_WR)
            assert all(status < 500 for status in statuses(connection)), message

    check()
    assert server.client.get("/ready").status_code == 200
    lines = server.log.read_text()[log_before:].splitlines()
    assert [line for line in lines if not LOG_LINE.fullmatch(line)] == []
    assert len([line for line in lines if "ended connections" not in line]) <= requests
    # A message may have queued a job.
    wait_until(lambda: server.client.get("/health").json()["freeSlots"] == 1)
