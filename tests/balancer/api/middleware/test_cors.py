"""Web pages of other origins, with a real balancer and requests as browsers send them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from balancer.api.middleware.cors import EXPOSED_HEADERS
from tests.support.harness import Server, serve_stub
from tests.support.raw_http import BODY, RawResponse, ask, with_body

KEY = "a-key-for-the-tests-of-origins"
PAGE = "https://page.example"
APP = "http://localhost:3000"
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with keys."""
    with serve_stub(cors_origins=f"{PAGE}, {APP}", api_keys=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def keyless() -> Iterator[Server]:
    with serve_stub(cors_origins=PAGE) as server:
        yield server


@pytest.fixture(scope="module")
def open_to_all() -> Iterator[Server]:
    with serve_stub(cors_origins="*") as server:
        yield server


def preflight(server: Server, path: str, origin: str, method: str = "POST", *headers: str) -> RawResponse:
    lines = [
        f"OPTIONS {path} HTTP/1.1",
        f"Host: {server.url.removeprefix('http://')}",
        f"Origin: {origin}",
        f"Access-Control-Request-Method: {method}",
        "Sec-Fetch-Mode: cors",
        *headers,
    ]
    return ask(server.url, "\r\n".join([*lines, "", ""]).encode())


def allowances(headers: object) -> dict[str, str]:
    """The headers of CORS in a response."""
    assert isinstance(headers, dict | httpx.Headers)
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith("access-control-")}


def names(value: str) -> set[str]:
    return {name.strip().lower() for name in value.split(",")}


@pytest.mark.parametrize(
    "path", ["/tts", "/tts-json", "/v1/audio/speech", "/queue", "/queue/x", "/status/x", "/audio/x", "/health", "/no"]
)
@pytest.mark.parametrize("origin", [PAGE, APP])
def test_a_preflight_is_answered_on_every_route_without_a_key(server: Server, path: str, origin: str) -> None:
    wanted = "authorization,content-type,x-stainless-os"
    response = preflight(server, path, origin, "POST", f"Access-Control-Request-Headers: {wanted}")
    assert response.status == 200
    allowed = allowances(response.headers)
    assert allowed["access-control-allow-origin"] == origin
    assert names(allowed["access-control-allow-methods"]) >= {"get", "head", "post", "delete"}
    assert names(allowed["access-control-allow-headers"]) == names(wanted)
    assert "access-control-allow-credentials" not in allowed
    assert response.headers["vary"] == "Origin"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("origin", [EVIL, "null", f"{PAGE}:444", PAGE.replace("https", "http"), PAGE.upper()])
def test_other_origins_get_no_header_and_what_they_got_before(server: Server, origin: str) -> None:
    refused = preflight(server, "/tts", origin)
    assert (refused.status, refused.code, allowances(refused.headers)) == (401, "invalid_api_key", {})
    response = server.client.get("/v1/models", headers={"Origin": origin, "X-API-Key": KEY})
    assert (response.status_code, allowances(response.headers), response.headers["Vary"]) == (200, {}, "Origin")


def test_answers_carry_the_headers_whatever_they_are(server: Server) -> None:
    from_page = {"Origin": PAGE, "Authorization": f"Bearer {KEY}"}
    post = server.client.post
    answers = [
        (post("/tts", json={"text": "Hi."}, headers=from_page), 200),
        (post("/v1/audio/speech", json={"model": "tts-1", "input": "Hi.", "voice": "default"}, headers=from_page), 200),
        (post("/tts", json={"text": ""}, headers=from_page), 400),
        (post("/tts", json={"text": "Hi."}, headers={"Origin": PAGE}), 401),
        (server.client.get("/status/none", headers=from_page), 404),
        (server.client.get("/no", headers=from_page), 404),
        (server.client.put("/tts", headers=from_page), 405),
    ]
    for response, status in answers:
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert names(response.headers["Access-Control-Expose-Headers"]) == {name.lower() for name in EXPOSED_HEADERS}
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in response.headers


def test_an_answer_without_an_origin_is_not_for_pages(server: Server) -> None:
    response = server.client.get("/v1/models", headers={"X-API-Key": KEY})
    assert (allowances(response.headers), response.headers["Vary"]) == ({}, "Origin")


def test_a_page_can_read_why_it_is_limited() -> None:
    with serve_stub(cors_origins=PAGE, rate_requests_per_minute=1) as server:
        for status in (200, 429):
            response = server.client.post("/tts", json={"text": "Hi."}, headers={"Origin": PAGE})
            assert response.status_code == status
            assert response.headers["Access-Control-Allow-Origin"] == PAGE
            sent = {name for name in response.headers if name.startswith(("ratelimit", "retry", "x-"))}
            assert sent <= names(response.headers["Access-Control-Expose-Headers"])
        assert "retry-after" in sent


def test_a_stream_of_events_has_the_headers(keyless: Server) -> None:
    job = keyless.client.post("/queue", json={"text": "Hi."}, headers={"Origin": PAGE})
    assert job.status_code == 202
    assert {"location"} <= names(job.headers["Access-Control-Expose-Headers"])
    headers = {"Origin": PAGE, "Accept": "text/event-stream"}
    with keyless.client.stream("GET", f"/status/{job.json()['requestId']}", headers=headers) as events:
        assert events.headers["Access-Control-Allow-Origin"] == PAGE
        assert events.headers["Content-Type"].startswith("text/event-stream")
        assert any(json.loads(line[6:])["ready"] for line in events.iter_lines() if line.startswith("data: "))
    audio = keyless.client.get(f"/audio/{job.json()['requestId']}", headers={"Origin": PAGE, "Range": "bytes=0-9"})
    assert audio.status_code == 206
    assert {"etag", "content-range", "accept-ranges"} <= names(audio.headers["Access-Control-Expose-Headers"])


def test_an_allowed_origin_passes_the_check_of_a_server_without_keys(keyless: Server) -> None:
    assert preflight(keyless, "/tts", PAGE).status == 200
    refused = preflight(keyless, "/tts", EVIL)
    assert (refused.status, refused.code, allowances(refused.headers)) == (403, "not_allowed", {})
    for origin, status in ((PAGE, 200), (EVIL, 403), ("null", 403)):
        response = keyless.client.post("/tts", json={"text": "Hi."}, headers={"Origin": origin})
        assert response.status_code == status
        assert ("Access-Control-Allow-Origin" in response.headers) is (status == 200)


def test_the_host_is_checked_whatever_the_origin(keyless: Server, open_to_all: Server) -> None:
    for server in (keyless, open_to_all):
        head = b"POST /tts HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\n"
        response = ask(server.url, with_body(head, f"Origin: {PAGE}".encode(), body=BODY))
        assert (response.status, response.code, allowances(response.headers)) == (421, "unknown_host", {})


def test_every_origin_is_allowed_without_credentials(open_to_all: Server) -> None:
    for origin in (PAGE, EVIL, "null"):
        allowed = allowances(preflight(open_to_all, "/tts", origin).headers)
        assert allowed["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in allowed
        response = open_to_all.client.post("/tts", json={"text": "Hi."}, headers={"Origin": origin})
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Vary"] == "Origin"


def test_only_known_pages_come_into_a_private_network(server: Server, open_to_all: Server) -> None:
    asked = "Access-Control-Request-Private-Network: true"
    granted = "access-control-allow-private-network"
    assert preflight(server, "/tts", PAGE, "POST", asked).headers[granted] == "true"
    assert granted not in preflight(server, "/tts", PAGE).headers
    assert granted not in preflight(open_to_all, "/tts", PAGE, "POST", asked).headers


def test_without_the_setting_nothing_changes() -> None:
    with serve_stub() as server:
        own = preflight(server, "/tts", server.url)
        assert (own.status, own.code, allowances(own.headers)) == (405, "method_not_allowed", {})
        response = server.client.post("/tts", json={"text": "Hi."}, headers={"Origin": server.url})
        assert (response.status_code, allowances(response.headers)) == (200, {})
        assert "Vary" not in response.headers
        assert preflight(server, "/tts", PAGE).status == 403
