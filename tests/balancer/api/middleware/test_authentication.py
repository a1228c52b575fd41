"""API key authentication: over HTTP to the real balancer, and the middleware alone."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from balancer.access.key_ring import KeyRing
from balancer.api.middleware.authentication import AuthenticationMiddleware
from tests.support.harness import TIMEOUT, Server, serve_stub, start_balancer, start_stub

KEY, OTHER = "first-key-0123456789", "second-key-0123456789"
HELLO = {"text": "Hello."}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(api_keys=f"{KEY}, {OTHER}") as server:
        yield server


def refused(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["X-Request-Id"]
    error: dict[str, Any] = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("authentication_error", None, "invalid_api_key")
    return error


GUARDED = [
    ("POST", "/tts"),
    ("POST", "/tts-json"),
    ("POST", "/v1/audio/speech"),
    ("GET", "/v1/audio/voices"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/hibari"),
    ("GET", "/metrics"),
    ("GET", "/capabilities"),
    ("POST", "/segments"),
    ("GET", "/pages"),
    ("GET", "/nothing"),
    ("GET", "/docsx"),
    ("GET", "/healthzz"),
    ("GET", "/openapi.json.bak"),
    ("GET", "/Health"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_key_every_guarded_path_responds_with_401(server: Server, method: str, path: str) -> None:
    error = refused(server.client.request(method, path, json=HELLO))
    assert "Authorization: Bearer" in error["message"]
    assert "X-API-Key" in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": f"Bearer {KEY},{OTHER}"},
        {"Authorization": f"Bearer {KEY}, {OTHER}"},
        {"Authorization": "Bearer"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer{KEY}"},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"X-API-Key": f"Bearer {KEY}"},
        {"Api-Key": KEY},
        {"Cookie": f"api_key={KEY}"},
    ],
    ids=str,
)
def test_a_wrong_key_is_refused(server: Server, headers: dict[str, str]) -> None:
    error = refused(server.client.get("/v1/models", headers=headers))
    assert KEY not in error["message"]


def test_a_key_in_the_query_is_ignored(server: Server) -> None:
    refused(server.client.get("/v1/models", params={"api_key": KEY, "key": KEY}))


@pytest.mark.parametrize("key", [KEY, OTHER])
@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("Authorization", "Bearer {}"),
        ("authorization", "bearer {}"),
        ("Authorization", "BEARER   {}"),
        ("X-API-Key", "{}"),
        ("x-api-key", "{}"),
    ],
)
def test_each_key_is_accepted_in_either_header(server: Server, key: str, header: str, form: str) -> None:
    response = server.client.get("/v1/models", headers={header: form.format(key)})
    assert response.status_code == 200
    assert "WWW-Authenticate" not in response.headers


def test_x_api_key_is_accepted_beside_basic_authorization(server: Server) -> None:
    headers = {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": KEY}
    assert server.client.get("/v1/models", headers=headers).status_code == 200


def test_with_a_key_speech_is_synthesized(server: Server) -> None:
    response = server.client.post("/tts", json=HELLO, headers={"X-API-Key": KEY})
    assert response.status_code == 200
    assert response.content.startswith(b"RIFF")


OPEN = ["/health", "/ready", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css", "/", "/page/main.js"]


@pytest.mark.parametrize("path", OPEN)
def test_probes_documentation_and_the_page_need_no_key(server: Server, path: str) -> None:
    assert server.client.get(path).status_code == 200
    assert server.client.get(path, headers={"X-API-Key": "wrong"}).status_code == 200


def test_strangers_learn_no_more_than_a_health_check_needs(server: Server) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}):
        assert server.client.get("/health", headers=headers).json().keys() == {"status", "timestamp", "draining"}
        assert server.client.get("/ready", headers=headers).json().keys() == {"ready", "timestamp", "draining"}


def test_with_a_key_health_has_everything(server: Server) -> None:
    headers = {"X-API-Key": KEY}
    (worker,) = server.client.get("/health", headers=headers).json()["workers"]
    assert worker["pid"] == server.stub.process.pid
    assert server.client.get("/ready", headers=headers).json()["phases"]["ready"] == 1


def test_the_control_socket_needs_no_key_and_has_everything(server: Server) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.log.parent / "control.sock"))) as client:
        (worker,) = client.get("http://control/health").json()["workers"]
    assert worker["pid"] == server.stub.process.pid


@pytest.mark.parametrize("header", [b"Authorization", b"X-API-Key"])
@pytest.mark.parametrize("value", [b"\xff\xfe\x80", "Bearer ключ".encode(), b"Bearer \xe9" * 100, b"Bearer \x80"])
def test_a_key_with_non_ascii_bytes_is_refused(server: Server, header: bytes, value: bytes) -> None:
    refused(server.client.get("/v1/models", headers={header: value}))
    assert "Traceback" not in server.log.read_text()


# Sent over a plain socket: httpx would normalise them.
TRICKS = [
    "//tts",
    "/./tts",
    "/tts/",
    "/tts/.",
    "/TTS",
    "/tts;x",
    "/tts%00",
    "/%74ts",
    "/health/../tts",
    "/health/%2e%2e/tts",
    "/health%2f..%2ftts",
    "/health//../tts",
    "/health/tts",
    "/docs/../tts",
    "/docs/assets/../../tts",
    "/docs/assets/%2e%2e/%2e%2e/metrics",
    "/docs/..%5c..%5ctts",
    "/docsx",
    "/healthzz",
    "/health;/../tts",
    "/health%00/../tts",
    "/openapi.json/../metrics",
    "/ready?/../tts",
    "http://localhost/tts",
    "http://localhost/health/../tts",
    "*",
]


@pytest.mark.parametrize("path", TRICKS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_spelling_of_a_path_bypasses_authentication(server: Server, method: str, path: str) -> None:
    url = server.client.base_url
    assert url.port is not None
    before = server.stub.state().done
    content = b'{"text": "Hello."}'
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port), timeout=TIMEOUT) as client:
        client.sendall(head.encode() + content)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    status = int(received.split(b" ", 2)[1])
    if path.startswith("/ready?") and method == "GET":
        assert status == 200  # what follows is a query
    else:
        assert status in {400, 401, 404, 405, 307}
    assert not re.search(rb"content-type: audio|chorus_requests_total", received, re.IGNORECASE)
    assert server.stub.state().done == before


def test_without_configured_keys_every_request_is_accepted(run_dir: Path) -> None:
    with start_stub(run_dir), start_balancer(run_dir) as url:
        assert httpx.post(f"{url}/tts", json=HELLO, timeout=TIMEOUT).status_code == 200
        response = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer sk-none"}, timeout=TIMEOUT)
        assert response.status_code == 200


# The middleware alone


async def status_of(keys: list[str], headers: list[tuple[bytes, bytes]]) -> int:
    async def here(_: Request) -> Response:
        return PlainTextResponse("in")

    middleware = AuthenticationMiddleware(Starlette(routes=[Route("/here", here)]), KeyRing(keys))
    transport = httpx.ASGITransport(app=middleware)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return (await client.get("/here", headers=headers)).status_code


async def test_without_keys_the_middleware_accepts_all() -> None:
    assert await status_of([], []) == 200


async def test_the_first_of_two_headers_counts() -> None:
    right, wrong = (b"X-API-Key", KEY.encode()), (b"X-API-Key", b"wrong")
    assert await status_of([KEY], [right, wrong]) == 200
    assert await status_of([KEY], [wrong, right]) == 401


async def test_bearer_takes_precedence_over_x_api_key() -> None:
    assert await status_of([KEY], [(b"Authorization", b"Bearer wrong"), (b"X-API-Key", KEY.encode())]) == 401
