"""Reads one header of a request."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """The value of the first header of that name, which is given in lower case; None: there is none.

    Starlette's `Headers` take long to find that a header is missing, and most of those that are looked for are.
    """
    for key, value in scope["headers"]:
        if key == name:
            decoded: str = value.decode("latin-1")
            return decoded
    return None
