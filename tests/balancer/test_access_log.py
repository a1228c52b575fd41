"""The access log around a small application."""

from __future__ import annotations

import logging
import re

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from balancer.access_log import AccessLog
from balancer.telemetry import Telemetry


class Watched(Telemetry):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def answered(self, surface: str, status: int, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.seen.append((surface, status))
        super().answered(surface, status, seconds)


@pytest.fixture
def telemetry() -> Watched:
    return Watched()


@pytest.fixture
def app(telemetry: Watched) -> AccessLog:
    async def here(request: Request) -> Response:
        return PlainTextResponse(request.state.request_id)

    async def broken(_: Request) -> Response:
        raise RuntimeError("broken")

    inner = Starlette(routes=[Route("/here", here), Route("/broken", broken)])
    return AccessLog(inner, telemetry, frozenset({"/here", "/broken"}))


async def get(app: AccessLog, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path, headers=headers)


async def test_the_routes_know_the_id_that_the_client_gets(app: AccessLog) -> None:
    answer = await get(app, "/here")
    assert answer.text == answer.headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{16}", answer.text)


async def test_ids_differ(app: AccessLog) -> None:
    assert len({(await get(app, "/here")).text for _ in range(10)}) == 10


async def test_an_id_of_the_clients_is_kept(app: AccessLog) -> None:
    answer = await get(app, "/here", {"X-Request-Id": "abc-1"})
    assert answer.text == answer.headers["X-Request-Id"] == "abc-1"


async def test_a_line_each(app: AccessLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "balancer.access_log")
    await get(app, "/here", {"X-Request-Id": "abc-1"})
    await get(app, "/nothing%0aabc-2 GET /here 200", {"X-Request-Id": "abc-3"})
    first, second = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r"abc-1 GET /here 200 \d+\.\d{3}s", first)
    assert re.fullmatch(r"abc-3 GET other 404 \d+\.\d{3}s", second)


async def test_paths_that_do_not_exist_share_one_label(app: AccessLog, telemetry: Watched) -> None:
    for path in ("/here", "/a", "/b", "/here/"):
        await get(app, path)
    assert telemetry.seen == [("/here", 200), ("other", 404), ("other", 404), ("other", 307)]


async def test_a_defect_is_counted_and_has_its_id(app: AccessLog, telemetry: Watched) -> None:
    answer = await get(app, "/broken", {"X-Request-Id": "abc-4"})
    assert answer.status_code == 500
    assert answer.headers["X-Request-Id"] == "abc-4"
    assert telemetry.seen == [("/broken", 500)]


async def test_an_id_that_the_application_set_itself_gives_way(telemetry: Watched) -> None:
    async def here(_: Request) -> Response:
        return PlainTextResponse("", headers={"X-Request-Id": "its own"})

    app = AccessLog(Starlette(routes=[Route("/here", here)]), telemetry, frozenset())
    answer = await get(app, "/here", {"X-Request-Id": "ours"})
    assert answer.headers.get_list("X-Request-Id") == ["ours"]
