from __future__ import annotations

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from balancer.api.middleware.connection_close import ConnectionCloseMiddleware


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def test_responses_close_the_connection_once_closing_is_set() -> None:
    middleware = ConnectionCloseMiddleware(Starlette(routes=[Route("/", hello)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(middleware), base_url="http://test") as client:
        assert "connection" not in (await client.get("/")).headers
        middleware.closing = True
        assert (await client.get("/")).headers["connection"] == "close"
