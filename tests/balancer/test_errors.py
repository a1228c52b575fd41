"""The error classes, and the responses made of them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from math import inf, nan

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from balancer import errors
from balancer.api.responses import (
    ClientGoneError,
    JSONResponse,
    client_gone_response,
    error_response,
    http_error_response,
    internal_error_response,
)
from balancer.errors import (
    FURTHER_CODES,
    ChorusError,
    InvalidRequestError,
    NotAuthenticatedError,
    NotServingError,
    QueueFullError,
)
from scripts.support.error_table import error_markdown
from tests.support.harness import ROOT


def request(path: str = "/x") -> Request:
    return Request({"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []})


def tree(error: type[ChorusError], depth: int = 0) -> Iterator[tuple[type[ChorusError], int]]:
    yield error, depth
    for subclass in error.__subclasses__():
        yield from tree(subclass, depth + 1)


ALL = [error for error, _ in tree(ChorusError)]


def test_the_docstring_draws_the_class_tree() -> None:
    drawing = (errors.__doc__ or "").partition("\n\n")[2].rstrip().splitlines()
    drawn = []
    for line in drawing:
        name, *rest = line.lstrip("│├└─ ").split()
        depth = line.index(name) // 4
        drawn.append((name, depth, int(rest[0]) if rest else ChorusError.status))
    assert drawn == [(error.__name__, depth, error.status) for error, depth in tree(ChorusError)]


def test_the_table_in_the_docs_is_the_generated_one() -> None:
    docs = (ROOT / "docs" / "api.md").read_text()
    table = re.search(r"<!-- errors: .*? -->\n(.*?)\n<!-- end of errors -->", docs, re.DOTALL)
    assert table is not None
    assert table[1] == error_markdown(), "run `python -m scripts.support.error_table` and put its output there"


@pytest.mark.parametrize("error", ALL)
def test_every_error_says_what_it_means_and_what_to_do(error: type[ChorusError]) -> None:
    own = vars(error)
    assert own["advice"]
    assert own["__doc__"]


def codes_given_in(source: str) -> Iterator[tuple[int, str]]:
    """Status and code of every error of a module that is raised with a code other than its class's."""
    module = ast.parse(source)
    constants = {
        target.id: statement.value.value
        for statement in module.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for call in ast.walk(module):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            continue
        error = getattr(errors, call.func.id, None)
        for keyword in call.keywords:
            if error is not None and keyword.arg == "code":
                value = keyword.value
                if isinstance(value, ast.Constant):
                    yield error.status, str(value.value)
                elif isinstance(value, ast.Name):
                    yield error.status, str(constants[value.id])


def test_every_further_code_is_in_the_table() -> None:
    given = {pair for file in (ROOT / "balancer").rglob("*.py") for pair in codes_given_in(file.read_text())}
    elsewhere = {(404, "not_found"), (405, "method_not_allowed"), (503, "not_started")}  # Starlette's, the stand-in's
    from_workers = {(400, "invalid"), (400, "unspeakable")}
    listed = {(further.status, code) for code, further in FURTHER_CODES.items()}
    assert listed == given | elsewhere | from_workers


@pytest.mark.parametrize("error", ALL)
def test_every_error_has_openais_shape(error: type[ChorusError]) -> None:
    response = error_response(request(), error("no", param="text"))
    assert response.status_code == error.status
    assert response.media_type == "application/json"
    assert json.loads(bytes(response.body)) == {
        "error": {"message": "no", "type": error.type, "param": "text", "code": error.code}
    }


@pytest.mark.parametrize("error", ALL)
def test_the_type_follows_from_the_status(error: type[ChorusError]) -> None:
    # OpenAI's clients distinguish errors by these types.
    special = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    expected = "server_error" if error.status >= 500 else "invalid_request_error"
    assert error.type == special.get(error.status, expected)


def test_every_error_class_has_a_unique_code() -> None:
    assert len({error.code for error in ALL}) == len(ALL)


def test_a_code_can_be_set_per_error() -> None:
    assert InvalidRequestError("no", code="text_too_long").code == "text_too_long"
    assert InvalidRequestError("no").code == "invalid_request"


@pytest.mark.parametrize(
    ("seconds", "header"),
    [(None, None), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (59.5, "60"), (inf, None), (nan, None)],
)
def test_retry_after_is_a_whole_number_of_seconds_and_at_least_one(seconds: float | None, header: str | None) -> None:
    for error in (QueueFullError, NotServingError):
        assert error_response(request(), error("no", retry_after=seconds)).headers.get("Retry-After") == header


def test_only_authentication_errors_have_www_authenticate() -> None:
    assert error_response(request(), NotAuthenticatedError("no")).headers["WWW-Authenticate"] == "Bearer"
    assert "WWW-Authenticate" not in error_response(request(), InvalidRequestError("no")).headers


def test_errors_of_starlette_have_the_same_shape() -> None:
    response = http_error_response(request("/there"), HTTPException(405, headers={"Allow": "POST"}))
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert json.loads(bytes(response.body))["error"] == {
        "message": "GET /there: Method Not Allowed; see /docs for the available endpoints",
        "type": "invalid_request_error",
        "param": None,
        "code": "method_not_allowed",
    }


def test_an_internal_error_reveals_no_details() -> None:
    response = internal_error_response(request(), KeyError("/etc/secret"))
    assert response.status_code == 500
    error = json.loads(bytes(response.body))["error"]
    assert error["type"] == "server_error"
    assert error["code"] == "internal_error"
    assert "X-Request-Id" in error["message"]
    assert b"secret" not in bytes(response.body)


def test_a_disconnected_client_is_counted_as_499() -> None:
    assert client_gone_response(request(), ClientGoneError()).status_code == 499


@pytest.mark.parametrize("text", ["é", "\ud800", "\0", "\u2028", "\U0001f600"])
def test_json_is_ascii_whatever_the_client_sent(text: str) -> None:
    body = bytes(JSONResponse({"x": text}).body)
    assert body.isascii()
    assert json.loads(body) == {"x": text}


def test_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        JSONResponse({"x": nan})
