"""The access log middleware around a small application."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from balancer.api.middleware.access_log import PROBE_PATHS, AccessLogMiddleware
from balancer.api.responses import error_response, http_error_response
from balancer.errors import InvalidRequestError
from balancer.metrics import Metrics


class SpyMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__("hibari")
        self.first_bytes: list[str] = []
        self.seen: list[tuple[str, int]] = []

    def record_response(self, surface: str, status: int, seconds: float, *, streamed: bool = False) -> None:
        assert 0 <= seconds < 60
        self.seen.append((surface, status))
        super().record_response(surface, status, seconds, streamed=streamed)

    def record_first_byte(self, surface: str, seconds: float, *, streamed: bool = False) -> None:
        assert 0 <= seconds < 60
        self.first_bytes.append(surface)
        super().record_first_byte(surface, seconds, streamed=streamed)


def log_fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = vars(record)["fields"]
    return fields


@pytest.fixture
def metrics() -> SpyMetrics:
    return SpyMetrics()


@pytest.fixture
def app(metrics: SpyMetrics) -> AccessLogMiddleware:
    async def here(request: Request) -> Response:
        return PlainTextResponse(request.state.request_id)

    async def broken(_: Request) -> Response:
        raise RuntimeError("broken")

    async def spoken(request: Request) -> Response:
        request.state.log_fields.characters = 5
        request.state.log_fields.worker = 1
        return PlainTextResponse("audio", 200 if request.path_params["id"] == "1" else 500)

    routes = [Route("/here", here), Route("/broken", broken), Route("/audio/{id}", spoken)]
    return AccessLogMiddleware(Starlette(routes=routes), metrics, routes, speech_paths={"/audio/{id}"})


async def get(app: AccessLogMiddleware, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path, headers=headers)


async def test_routes_see_the_request_id_that_the_client_gets(app: AccessLogMiddleware) -> None:
    response = await get(app, "/here")
    assert response.text == response.headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{16}", response.text)


async def test_generated_ids_differ(app: AccessLogMiddleware) -> None:
    assert len({(await get(app, "/here")).text for _ in range(10)}) == 10


async def test_a_request_id_of_the_client_is_kept(app: AccessLogMiddleware) -> None:
    response = await get(app, "/here", {"X-Request-Id": "abc-1"})
    assert response.text == response.headers["X-Request-Id"] == "abc-1"


async def test_every_request_has_one_log_line(app: AccessLogMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "balancer.api.middleware.access_log")
    await get(app, "/here", {"X-Request-Id": "abc-1"})
    await get(app, "/nothing%0aabc-2 GET /here 200", {"X-Request-Id": "abc-3"})
    first, second = caplog.records
    assert first.getMessage() == "GET /here 200"
    assert log_fields(first)["request"] == "abc-1"
    assert 0 <= log_fields(first)["seconds"] < 60
    assert second.getMessage() == "GET other 404"
    assert log_fields(second)["request"] == "abc-3"


async def test_the_line_of_a_speech_request_has_its_fields(
    app: AccessLogMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "balancer.api.middleware.access_log")
    await get(app, "/audio/1", {"X-Request-Id": "abc-1"})
    [line] = caplog.records
    assert line.getMessage() == "GET /audio/{id} 200"
    assert log_fields(line) == {
        "request": "abc-1",
        "seconds": log_fields(line)["seconds"],
        "characters": 5,
        "worker": 1,
    }


async def test_the_line_of_a_refusal_tells_its_reason_its_path_and_its_client(
    metrics: SpyMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_: Request) -> Response:
        raise InvalidRequestError("no such voice", param="voice", code="unknown_voice")

    routes = [Route("/speak", refuse)]
    handlers = {InvalidRequestError: error_response, HTTPException: http_error_response}
    refusing = AccessLogMiddleware(Starlette(routes=routes, exception_handlers=handlers), metrics, routes)
    caplog.set_level(logging.INFO, "balancer.api.middleware.access_log")
    await get(refusing, "/speak")
    await get(refusing, "/no/such%0apath")
    refused, unknown = map(log_fields, caplog.records)
    assert (refused["code"], refused["param"], refused["client"]) == ("unknown_voice", "voice", "127.0.0.1")
    assert "path" not in refused, "the message has it"
    assert (unknown["code"], unknown["path"], unknown["client"]) == ("not_found", "/no/such\npath", "127.0.0.1")


async def test_probes_are_not_logged_at_info(app: AccessLogMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "balancer.api.middleware.access_log")
    probed = AccessLogMiddleware(app._app, app._metrics, [Route(path, lambda _: None) for path in PROBE_PATHS])
    for path in PROBE_PATHS:
        await get(probed, path)
    assert caplog.records == []


async def test_paths_of_one_route_share_its_label(app: AccessLogMiddleware, metrics: SpyMetrics) -> None:
    for path in ("/audio/1", "/audio/2", "/audio/1/more"):
        await get(app, path)
    assert metrics.seen == [("/audio/{id}", 200), ("/audio/{id}", 500), ("other", 404)]


async def test_only_the_first_byte_of_audio_is_timed(app: AccessLogMiddleware, metrics: SpyMetrics) -> None:
    for path in ("/here", "/audio/1", "/audio/2"):
        await get(app, path)
    assert metrics.first_bytes == ["/audio/{id}"]


async def test_a_preflight_counts_as_no_speech(metrics: SpyMetrics) -> None:
    async def preflight(_: Request) -> Response:
        return PlainTextResponse("OK")

    routes = [Route("/spoken", preflight, methods=["OPTIONS"])]
    app = AccessLogMiddleware(Starlette(routes=routes), metrics, routes, {"/spoken"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
        await client.options("/spoken")
    assert metrics.seen == [("options", 200)]
    assert metrics.first_bytes == []


async def test_the_first_byte_is_that_of_the_audio_not_of_the_head(metrics: SpyMetrics) -> None:
    seen: list[list[str]] = []

    async def audio() -> AsyncIterator[bytes]:
        for piece in (b"", b"first", b"second"):
            seen.append(list(metrics.first_bytes))
            yield piece

    async def streamed(_: Request) -> Response:
        return StreamingResponse(audio())

    routes = [Route("/streamed", streamed)]
    await get(AccessLogMiddleware(Starlette(routes=routes), metrics, routes, {"/streamed"}), "/streamed")
    assert seen == [[], [], ["/streamed"]]
    assert metrics.first_bytes == ["/streamed"]


async def test_unknown_paths_share_one_label(app: AccessLogMiddleware, metrics: SpyMetrics) -> None:
    for path in ("/here", "/a", "/b", "/here/"):
        await get(app, path)
    assert metrics.seen == [("/here", 200), ("other", 404), ("other", 404), ("other", 307)]


async def test_an_internal_error_is_counted_and_has_a_request_id(app: AccessLogMiddleware, metrics: SpyMetrics) -> None:
    response = await get(app, "/broken", {"X-Request-Id": "abc-4"})
    assert response.status_code == 500
    assert response.headers["X-Request-Id"] == "abc-4"
    assert metrics.seen == [("/broken", 500)]


async def test_a_request_id_set_by_the_application_is_replaced(metrics: SpyMetrics) -> None:
    async def here(_: Request) -> Response:
        return PlainTextResponse("", headers={"X-Request-Id": "its own"})

    routes = [Route("/here", here)]
    app = AccessLogMiddleware(Starlette(routes=routes), metrics, routes)
    response = await get(app, "/here", {"X-Request-Id": "ours"})
    assert response.headers.get_list("X-Request-Id") == ["ours"]
