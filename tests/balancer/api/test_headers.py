from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from balancer.api.headers import header

SCOPE: Scope = {
    "type": "http",
    "headers": [(b"host", b"localhost"), (b"x-request-id", b"caf\xe9"), (b"x-request-id", b"second"), (b"empty", b"")],
}


def test_it_answers_as_starlette_does() -> None:
    for name in ("host", "x-request-id", "empty", "missing"):
        assert header(SCOPE, name.encode()) == Headers(scope=SCOPE).get(name)
