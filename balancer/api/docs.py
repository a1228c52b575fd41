"""`/openapi.json`, and `/docs`: Swagger UI, with all its assets served from here."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from balancer.api.openapi import describe
from balancer.api.ranges import RangeRequests
from balancer.api.responses import JSONResponse
from balancer.requests.validation import RequestValidator
from balancer.version import FULL_VERSION

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Chorus API</title>
  <link rel="stylesheet" href="docs/assets/swagger-ui.css">
  <link rel="icon" href="docs/assets/favicon-32x32.png">
</head>
<body>
  <div id="page"></div>
  <script src="docs/assets/swagger-ui-bundle.js"></script>
  <script>SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true});</script>
</body>
</html>
"""


class _Assets(StaticFiles):
    """The files of a package. A name that no file can have, such as one with a NUL, is 404."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        try:
            return super().lookup_path(path)
        except ValueError:
            return "", None


def routes(validator: RequestValidator) -> list[BaseRoute]:
    """The routes."""
    document = describe(validator, FULL_VERSION)

    async def openapi(_: Request) -> Response:
        return JSONResponse(document)

    async def docs(_: Request) -> Response:
        return HTMLResponse(_PAGE)

    return [
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Mount("/docs/assets", RangeRequests(_Assets(packages=[("swagger_ui", "static")]))),
    ]
