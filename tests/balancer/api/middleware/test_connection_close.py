from __future__ import annotations

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from balancer.api.middleware.connection_close import ConnectionCloseMiddleware


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def test_answers_close_their_connections_once_it_is_leaving() -> None:
    farewell = ConnectionCloseMiddleware(Starlette(routes=[Route("/", hello)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(farewell), base_url="http://test") as client:
        assert "connection" not in (await client.get("/")).headers
        farewell.leaving = True
        assert (await client.get("/")).headers["connection"] == "close"
