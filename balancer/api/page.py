"""The page at `/`, and its files below `/page/`. They hold no data: what the page shows comes from the API."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from balancer.page.files import INDEX, PageFile, read_files

PAGE_PATHS = ("/", "/page")
"""Paths of the page: like those of health checks, they are open without a key."""

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "media-src 'self' blob:",
            "img-src 'self' data:",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    ),
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The entity tag says whether a file is still the same: a restarted server may have a newer page.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


def routes(*, offered: bool) -> list[Route]:
    """The routes. A page that is not offered is not there; `/` then leads to the description of the API."""

    async def to_docs(_: Request) -> Response:
        return RedirectResponse("docs")

    if not offered:
        return [Route("/", to_docs)]
    files = read_files()

    async def index(request: Request) -> Response:
        return _respond(request, files[INDEX])

    async def file(request: Request) -> Response:
        found = files.get(request.path_params["path"])
        if found is None:
            raise HTTPException(404)
        return _respond(request, found)

    return [Route("/", index), Route("/page/{path:path}", file)]


def _respond(request: Request, file: PageFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if _is_known(request.headers, file.etag):
        return Response(status_code=304, headers=headers)
    if _takes_gzip(request.headers):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, media_type=file.media_type, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def _is_known(headers: Mapping[str, str], etag: str) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known


def _takes_gzip(headers: Mapping[str, str]) -> bool:
    """Whether the client accepts gzip, as every browser does. One that gives it a weight gets the plain file."""
    return "gzip" in [coding.strip() for coding in headers.get("accept-encoding", "").split(",")]
