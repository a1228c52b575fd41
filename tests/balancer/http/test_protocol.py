"""The HTTP server against raw sockets: what it accepts and refuses, and in which order it answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psutil
import pytest

from tests.support.harness import Server, await_banner, serve_stub, wait_until
from tests.support.raw_http import BODY, READY, TTS, ask, chunked, connect, with_body

MIB = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as running:
        await_banner(running)
        yield running


def line_count(server: Server) -> int:
    return len(server.log.read_text().splitlines())


def metric(server: Server, name: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and not line.startswith("#"))


def busy(server: Server) -> int:
    health = server.client.get("/health").json()
    return int(health["queueDepth"]) + int(health["slots"]) - int(health["freeSlots"])


# What is refused


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /ready HTTP/1.1\r\n\r\n", 400, "invalid_http"),
        (READY + b"Host: localhost\r\n\r\n", 400, "invalid_http"),
        (b"GET /ready HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "invalid_http"),
        (b"GET /ready HTTP/1.1\r\nHost: a/b?c\r\n\r\n", 400, "invalid_http"),
        (b"GET /ready HTTP/2.0\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
        (b"GET /ready HTTP/1.1\nHost: localhost\n\n", 400, "invalid_http"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_http"),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
        (with_body(TTS, b"Expect: coffee"), 417, "expectation_failed"),
        (with_body(TTS, b"Content-Encoding: gzip"), 415, "unsupported_media_type"),
        (with_body(TTS, b"Transfer-Encoding: chunked"), 400, "invalid_http"),
        (TTS + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid_http"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        (READY + b"Cookie: " + b"a" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (READY + b"a: b\r\n" * 100 + b"\r\n", 431, "headers_too_large"),
        (READY + b"a: %b\r\n" % (b"b" * 1000) * 70 + b"\r\n", 431, "headers_too_large"),
        (READY + b"a:\r\n" * MIB, 431, "headers_too_large"),
    ],
)
def test_what_is_refused(server: Server, request_bytes: bytes, status: int, code: str) -> None:
    before = line_count(server)
    with connect(server.url) as connection:
        connection.send(request_bytes)
        response = connection.response()
        assert (response.status, response.code) == (status, code)
        # The media type is the application's matter, which has read the body.
        assert response.headers.get("connection") == (None if status == 415 else "close")
    wait_until(lambda: line_count(server) > before)
    assert line_count(server) == before + 1
    assert f"request={response.headers['x-request-id']}" in server.log.read_text().splitlines()[-1]


def test_a_refused_encoding_is_told_what_is_accepted(server: Server) -> None:
    assert ask(server.url, with_body(TTS, b"Content-Encoding: br")).headers["accept-encoding"] == "identity"
    assert ask(server.url, with_body(TTS, b"Content-Encoding: identity")).status == 200


def test_headers_without_end_take_no_memory(server: Server) -> None:
    balancer = next(
        process
        for process in psutil.Process().children(recursive=True)
        if any(str(c.laddr.port) in server.url for c in process.net_connections() if c.laddr)
    )
    before = balancer.memory_info().rss
    with connect(server.url) as connection:
        connection.send(READY)
        for _ in range(24):
            connection.send(b"a:\r\n" * (MIB // 4))
        assert connection.response().status == 431
    assert balancer.memory_info().rss - before < 16 * MIB


# What is accepted


def test_an_upgrade_to_http2_is_ignored_and_the_body_read(server: Server) -> None:
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA")
    request = with_body(TTS, *upgrade)
    assert ask(server.url, request).status == 200
    with connect(server.url) as connection:  # as Java's client sends it: head and body apart
        connection.send(request[: -len(BODY)])
        connection.send(BODY)
        assert connection.response().status == 200
        connection.send(READY + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert connection.response().status == 200


def test_expect_100_continue_is_met(server: Server) -> None:
    with connect(server.url) as connection:
        connection.send(TTS + b"Expect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert connection.response().status == 100
        connection.send(BODY)
        assert connection.response().status == 200


def test_a_request_may_come_byte_by_byte_and_behind_empty_lines(server: Server) -> None:
    with connect(server.url) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"\r\n\r\n" + with_body(TTS):
            connection.send(bytes([byte]))
        assert connection.response().status == 200


def test_a_chunked_body_is_read_and_its_trailers_are_no_headers(server: Server) -> None:
    with connect(server.url) as connection:
        connection.send(chunked(TTS, BODY[:3], BODY[3:], trailers=b"X-Request-Id: trailer\r\nCookie: a\r\n"))
        response = connection.response()
        assert response.status == 200
        assert response.headers["x-request-id"] != "trailer"
        connection.send(chunked(TTS, BODY))
        assert connection.response().status == 200


@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 30_000, b"a: " + b"b" * 3 * MIB])
def test_trailers_without_end_are_refused(server: Server, trailers: bytes) -> None:
    with connect(server.url) as connection:
        connection.send(TTS + b"Transfer-Encoding: chunked\r\n\r\n3\r\n   \r\n0\r\n")
        connection.send(trailers)
        response = connection.response()
        assert (response.status, response.code) == (400, "invalid_http")


def test_http_1_0_needs_no_host(server: Server) -> None:
    response = ask(server.url, b"GET /ready HTTP/1.0\r\n\r\n")
    assert (response.status, response.headers["connection"]) == (200, "close")


def test_a_connection_is_closed_after_http_1_0(server: Server) -> None:
    with connect(server.url) as connection:
        connection.send(b"GET /ready HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert connection.response().headers["connection"] == "close"
        assert connection.is_closed()


def test_a_connection_that_asks_for_it_is_closed(server: Server) -> None:
    with connect(server.url) as connection:
        connection.send(READY + b"Connection: close\r\n\r\n")
        assert connection.response().headers["connection"] == "close"
        assert connection.is_closed()


def test_a_body_that_nobody_reads_ends_the_connection_after_the_response(server: Server) -> None:
    with connect(server.url) as connection:
        connection.send(TTS + b"Content-Length: 10000000\r\n\r\n")
        connection.send(b" " * 500_000)
        response = connection.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert connection.is_closed()


def test_the_root_is_the_page(server: Server) -> None:
    response = ask(server.url, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (response.status, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


# Pipelining and leaving


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    with connect(server.url) as connection:
        connection.send(with_body(TTS) + READY + b"\r\n" + with_body(TTS) + READY + b"Connection: close\r\n\r\n")
        assert [connection.response().headers["content-type"] for _ in range(4)] == [
            "audio/wav",
            "application/json",
            "audio/wav",
            "application/json",
        ]
        assert connection.is_closed()


def test_a_request_behind_a_chunked_body_is_not_answered(server: Server) -> None:
    with connect(server.url) as connection:
        connection.send(chunked(TTS, BODY) + READY + b"\r\n")
        assert connection.response().status == 200
        assert connection.is_closed()


@pytest.mark.parametrize("behind", [b"", READY + b"\r\n", READY + b"\r\n" + READY, READY * 10_000])
def test_a_client_that_leaves_is_noticed_whatever_it_sent_behind(server: Server, behind: bytes) -> None:
    before = metric(server, "chorus_cancellations_total")
    with connect(server.url) as connection:
        connection.send(with_body(TTS, body=b'{"text": "hang"}') + behind)
        wait_until(lambda: busy(server) == 1)
    wait_until(lambda: busy(server) == 0)
    assert metric(server, "chorus_cancellations_total") == before + 1


def test_a_client_that_leaves_while_it_sends_is_one_line_of_the_log(server: Server) -> None:
    before = line_count(server)
    with connect(server.url) as connection:
        connection.send(TTS + b"Content-Length: 100\r\n\r\n{")
    wait_until(lambda: line_count(server) > before)
    assert "POST /tts 499" in server.log.read_text().splitlines()[-1]
    assert server.client.get("/ready").status_code == 200
    assert line_count(server) == before + 1


# Time limits


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    with serve_stub(head_seconds=1, body_seconds=1, keep_alive_seconds=1, write_seconds=1) as running:
        yield running


def test_a_silent_connection_is_closed(hasty: Server) -> None:
    with connect(hasty.url) as connection:
        assert connection.is_closed()


def test_a_connection_is_closed_a_while_after_its_last_response(hasty: Server) -> None:
    with connect(hasty.url) as connection:
        connection.send(READY + b"\r\n")
        assert connection.response().status == 200
        assert connection.is_closed()


@pytest.mark.parametrize("half", [b"GET /re", READY, READY + b"\r\n" + READY, TTS + b"Content-Length: 9\r\n\r\n{"])
def test_half_a_request_is_a_408(hasty: Server, half: bytes) -> None:
    with connect(hasty.url) as connection:
        connection.send(half)
        response = connection.response()
        if response.status == 200:
            response = connection.response()
        assert (response.status, response.code) == (408, "request_timeout")
        assert connection.is_closed()


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (READY, b"a:b\r\n"),
        (TTS + b"Content-Length: 900\r\n\r\n", b" "),
        (TTS + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
)
def test_a_request_that_drips_is_a_408(hasty: Server, start: bytes, drop: bytes) -> None:
    with connect(hasty.url) as connection:
        connection.send(start)
        connection.socket.settimeout(0.2)
        for _ in range(100):
            connection.send(drop)
            try:
                response = connection.response()
            except TimeoutError:
                continue
            assert (response.status, response.code) == (408, "request_timeout")
            return
        pytest.fail("the server waits for ever")


def test_a_response_that_is_not_read_is_cut() -> None:
    with (
        serve_stub(write_seconds=1, max_text_characters=100_000) as server,
        connect(server.url, receive_buffer=4096) as connection,
    ):
        # Larger than all buffers of the kernel.
        asset = b"GET /docs/assets/swagger-editor-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.send(asset * 8)
        wait_until(lambda: metric(server, 'chorus_connections_ended_total{reason="unread_response"}') == 1)
        wait_until(lambda: metric(server, "chorus_connections ") == 1)
