"""The middleware that lets signed links in, around small applications."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from balancer.access.api_keys import ApiKey, digest_of
from balancer.access.caller import Caller, caller_of, is_link
from balancer.access.key_ring import KeyRing
from balancer.access.links import Links
from balancer.api.middleware.signed_links import SignedLinksMiddleware

KEY = "the-key-of-a-shop"
LINKS = Links(KeyRing([KEY]), "a secret of more than thirty-two bytes", Path("/nowhere"))
SHOP = Caller("shop", ApiKey(name="shop", digest=digest_of(KEY)))


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope)
    await PlainTextResponse(f"link {is_link(request)} {caller_of(request).name[:4]}")(scope, receive, send)


async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("authenticated")(scope, receive, send)


@pytest.fixture
def app() -> ASGIApp:
    return SignedLinksMiddleware(inner, authenticated, LINKS)


async def ask(app: ASGIApp, path: str, query: str, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
        return await client.request(method, f"{path}?{query}")


async def test_a_link_is_let_in_as_its_maker(app: ASGIApp) -> None:
    query, _ = LINKS.sign([("text", "Hi.")], SHOP, 60)
    assert (await ask(app, "/tts", query)).text == "link True key-"
    assert (await ask(app, "/tts", query, "HEAD")).status_code == 200


@pytest.mark.parametrize(("path", "method"), [("/tts", "POST"), ("/tts/", "GET"), ("/audio/x", "GET")])
async def test_a_link_is_a_get_of_one_path(app: ASGIApp, path: str, method: str) -> None:
    query, _ = LINKS.sign([("text", "Hi.")], SHOP, 60)
    assert (await ask(app, path, query, method)).text == "authenticated"


@pytest.mark.parametrize("query", ["", "text=Hi.", "text=signature", "Signature=1", "text=signature%3D1"])
async def test_what_has_no_signature_is_no_link(app: ASGIApp, query: str) -> None:
    assert (await ask(app, "/tts", query)).text == "authenticated"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("signature", 403, "link_invalid"),
        ("text=Hi.&signature=00", 403, "link_invalid"),
        ("text=%FF&signature=00", 400, "invalid_request"),
    ],
)
async def test_what_does_not_fit_goes_no_further(app: ASGIApp, query: str, status: int, code: str) -> None:
    response = await ask(app, "/tts", query)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
