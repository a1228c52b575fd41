"""Lets signed links in, which need no API key: they are requests of the caller who made them."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from balancer.access.caller import Caller
from balancer.access.links import SIGNATURE, Links
from balancer.api.query import parse_query
from balancer.api.responses import response_to
from balancer.errors import ChorusError

LINKED_PATH = "/tts"


class SignedLinksMiddleware:
    """Passes valid links on to `app`, and requests that are no links to `authenticated`."""

    def __init__(self, app: ASGIApp, authenticated: ASGIApp, links: Links) -> None:
        self._app = app
        self._authenticated = authenticated
        self._links = links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 403. Sets `state["link"]`, and `state["caller"]` of a link."""
        if scope["type"] != "http" or not _may_be_link(scope):
            await self._authenticated(scope, receive, send)
            return
        try:
            query = parse_query(scope["query_string"])
            if all(name != SIGNATURE for name, _ in query):
                await self._authenticated(scope, receive, send)
                return
            key = self._links.signer(query)
        except ChorusError as error:
            await response_to(error, scope)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["link"] = True
        if key is not None:
            state["caller"] = Caller(key.name, key)
        await self._app(scope, receive, send)


def _may_be_link(scope: Scope) -> bool:
    return (
        scope["path"] == LINKED_PATH
        and scope["method"] in ("GET", "HEAD")
        and SIGNATURE.encode() in scope["query_string"]
    )
