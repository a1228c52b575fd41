from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from balancer.api.middleware.paths import PathsMiddleware


async def path_of(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {request.url.query}".strip())


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/{path:path}", path_of, methods=["GET", "POST"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(PathsMiddleware(app)), base_url="http://x")


@pytest.mark.parametrize(
    ("called", "path"),
    [
        ("/v1/audio/speech/", "/v1/audio/speech"),
        ("/audio/speech", "/v1/audio/speech"),
        ("/audio/speech/", "/v1/audio/speech"),
        ("/audio/voices", "/v1/audio/voices"),
        ("/healthz", "/health"),
        ("/", "/"),
        ("/audio/speechx", "/audio/speechx"),
        ("/audio/8f0c", "/audio/8f0c"),
        ("/tts//", "/tts/"),
        ("/voices/ada%2F", "/voices/ada/"),
    ],
)
async def test_the_path_that_is_meant(client: httpx.AsyncClient, called: str, path: str) -> None:
    assert (await client.post(called)).text == path


async def test_the_query_stays(client: httpx.AsyncClient) -> None:
    assert (await client.get("/tts/?text=a/")).text == "/tts text=a/"
