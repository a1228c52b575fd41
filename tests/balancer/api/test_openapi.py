"""The description at `/openapi.json` against the real routes, and the page at `/docs`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from balancer.api.openapi import describe
from balancer.app.app import create_app
from balancer.metrics import SPEECH_SURFACES, Metrics
from balancer.requests.validation import RequestValidator
from balancer.runtime.lifecycle import Lifecycle
from balancer.settings.settings import Settings
from tests.support.harness import TIMEOUT, start_balancer
from voices.registry import Registry
from worker.cards import CARDS, Choice, EngineCard, Parameter, SegmentLength

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
UNDESCRIBED = {"/", "/page/{path}", "/docs", "/openapi.json"}
"""The document itself, and the pages."""
OPERATORS = {"/v1/audio/voices", "/v1/audio/voices/{name}", "/drain", "/resume"}
"""Paths with operations for operators."""


SUCCESS = {("/queue", "post"): "202", ("/queue/batch", "post"): "202", ("/v1/audio/voices", "post"): "201"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        tempfile.TemporaryDirectory(prefix="chorus-") as folder,
        start_balancer(Path(folder), ready=0) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    described: dict[str, Any] = response.json()
    return described


def nodes(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in children:
        yield from nodes(part)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        assert item
        assert item.keys() <= METHODS
        for method, operation in item.items():
            yield path, method, operation


def schema(document: dict[str, Any], path: str) -> dict[str, Any]:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json"}
    found: dict[str, Any] = resolve(document, content["application/json"]["schema"]["$ref"])
    return found


def resolve(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def app_routes() -> list[BaseRoute]:
    app = create_app(Settings.load({}), Metrics("hibari"), Lifecycle())
    inner: Any = app
    while not isinstance(inner, Starlette):
        inner = inner._app
    return list(inner.routes)


# The document


def test_the_structure_of_the_document(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document.keys() <= {"openapi", "info", "paths", "components", "security", "servers", "tags"}
    assert {"title", "version"} <= document["info"].keys()
    assert document["components"].keys() <= {"schemas", "securitySchemes"}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert references
    for reference in references:
        assert isinstance(resolve(document, reference), dict)


def test_every_schema_is_used(document: dict[str, Any]) -> None:
    used = {node["$ref"].rpartition("/")[2] for node in nodes(document) if "$ref" in node}
    assert used == set(document["components"]["schemas"])


def test_every_operation_describes_its_responses(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert SUCCESS.get((path, method), "200") in operation["responses"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5](\d\d|XX)|default", status)
            assert response["description"]
            assert all("/" in media_type for media_type in response.get("content", {}))


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        declared = {entry["name"] for entry in operation.get("parameters", ()) if entry["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        for entry in operation.get("parameters", ()):
            assert entry["required"] is (entry["in"] == "path" or entry["name"] == "text")
            assert entry["schema"]


def test_every_security_scheme_is_defined_and_used(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {name for entry in document["security"] for name in entry} == set(schemes)
    assert {"type": "apiKey", "in": "header", "name": "X-API-Key"} in schemes.values()
    assert {"type": "http", "scheme": "bearer"} in schemes.values()


def test_every_route_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    routes = {
        (route.path_format, method.lower())
        for route in app_routes()
        if isinstance(route, Route) and route.path_format not in UNDESCRIBED
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert {(path, method) for path, method, _ in operations(document)} == routes


def test_the_access_log_knows_every_route_that_synthesizes(document: dict[str, Any]) -> None:
    assert {path for path, _, operation in operations(document) if operation["tags"] == ["Speech"]} == SPEECH_SURFACES


def test_get_operations_respond_as_described(document: dict[str, Any], client: httpx.Client) -> None:
    for path, method, _ in operations(document):
        if method == "get":
            # No worker is running here, so /health and /ready respond with 503.
            status = client.get(path.replace("{model}", "tts-1"), params={"text": "Hi."}).status_code
            responses = document["paths"][path][method]["responses"]
            if path == "/v1/audio/voices/{name}":
                assert status == 403, "a server without API keys has no operators"
                assert "4XX" in responses
            elif "{id}" in path:
                assert status == 404, "there is no job of that name"
                assert "4XX" in responses
            else:
                assert status == {"/health": 503, "/ready": 503, "/tts": 405}.get(path, 200)
                assert str(status) in responses or f"{status // 100}XX" in responses


def test_every_operation_for_operators_says_so(document: dict[str, Any]) -> None:
    described = {path for path, _, operation in operations(document) if operation["tags"] == ["Operators"]}
    assert described == OPERATORS


def test_the_form_of_a_voice(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/audio/voices"]["post"]["requestBody"]["content"]
    form = resolve(document, content["multipart/form-data"]["schema"]["$ref"])
    fields = {"name", "clip", "consent", "consent_date", "synthetic", "description", "language", "aliases", "replace"}
    assert form["properties"].keys() == fields
    assert form["required"] == ["name", "clip"]
    assert form["additionalProperties"] is False
    assert all(field.get("description") for field in form["properties"].values())


# The bodies

COMMON_FIELDS = {"priority", "deadline_ms", "normalize", "stream"}


@pytest.mark.parametrize(
    ("path", "fields", "required"),
    [
        ("/tts", {"text", "character", "voice", "model", "format", "speed", "seed", *COMMON_FIELDS}, {"text"}),
        ("/tts-json", {"text", "character", "voice", "model", "format", "speed", "seed", *COMMON_FIELDS}, {"text"}),
        (
            "/v1/audio/speech",
            {
                "model",
                "input",
                "voice",
                "response_format",
                "instructions",
                "stream_format",
                "speed",
                "seed",
                *COMMON_FIELDS,
            },
            {"input"},
        ),
    ],
)
def test_the_fields_of_a_body(document: dict[str, Any], path: str, fields: set[str], required: set[str]) -> None:
    found = schema(document, path)
    assert found["properties"].keys() == fields
    assert set(found["required"]) == required
    assert found["additionalProperties"] is False
    assert all(field.get("description") for field in found["properties"].values())
    assert found["properties"]["text" if "text" in fields else "input"]["maxLength"] == 5000
    assert (found["properties"]["speed"]["minimum"], found["properties"]["speed"]["maximum"]) == (0.25, 4.0)


def test_the_formats(document: dict[str, Any]) -> None:
    reference = schema(document, "/tts")["properties"]["format"]["$ref"]
    assert resolve(document, reference)["enum"] == ["mp3", "opus", "aac", "flac", "wav", "pcm"]


def test_parameters_of_the_engine_are_fields() -> None:
    card = EngineCard(
        name="parrot",
        description="Talks.",
        sample_rate=1,
        resident_bytes=1,
        segments=SegmentLength(maximum=9),
        seconds_per_character=1,
        speed=1,
        parameters=(
            Parameter(name="top_k", minimum=1, maximum=9, default=5, integer=True, description="How many."),
            Parameter(name="warmth", minimum=0, maximum=0.5, default=0.25, description="How warm."),
            Choice(name="language", choices=("de", "en"), description="Which."),
        ),
    )
    document = describe(RequestValidator(card, Registry({}, Path()), max_characters=77), "1.2.3")
    for path in ("/tts", "/v1/audio/speech"):
        found = schema(document, path)["properties"]
        assert found["top_k"] == {
            "type": "integer",
            "minimum": 1,
            "maximum": 9,
            "default": 5,
            "description": "How many.",
        }
        assert found["warmth"] == {
            "type": "number",
            "minimum": 0,
            "maximum": 0.5,
            "default": 0.25,
            "description": "How warm.",
        }
        assert found["language"] == {"type": "string", "enum": ["de", "en"], "description": "Which."}
        assert found["text" if path == "/tts" else "input"]["maxLength"] == 77
    assert document["info"]["version"] == "1.2.3"
    assert "parrot" in document["info"]["description"]


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_every_engine_can_be_described(card: EngineCard) -> None:
    found = schema(describe(RequestValidator(card, Registry({}, Path()), 10), "1"), "/tts")["properties"]
    assert found.keys() >= {parameter.name for parameter in card.parameters}
    assert all(field.get("description") for field in found.values())


def test_descriptions_do_not_affect_each_other() -> None:
    first, second = (
        describe(RequestValidator(CARDS["hibari"], Registry({}, Path()), limit), "1") for limit in (10, 20)
    )
    assert schema(first, "/tts")["properties"]["text"]["maxLength"] == 10
    assert schema(second, "/tts")["properties"]["text"]["maxLength"] == 20


# The page


def test_the_page_loads_its_assets_from_this_server(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 3
    assert 'url: "openapi.json"' in page.text
    for address in [*assets, "openapi.json"]:
        assert not re.match(r"[a-z]+:|//", address)
        response = client.get(urljoin("/docs", address))
        assert response.status_code == 200
        assert response.content
    assert "//" not in page.text


def test_the_stylesheet_loads_nothing_from_other_servers(client: httpx.Client) -> None:
    style = client.get("/docs/assets/swagger-ui.css").text
    fetched = re.findall(r"url\(\s*[\"']?([^)\"']{1,40})|@import\s+[\"']([^\"']+)", style)
    assert all(address.startswith(("data:", "#")) for address, _ in fetched), fetched


@pytest.mark.parametrize(
    ("name", "kind"), [("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "text/javascript")]
)
def test_assets_have_their_content_type(client: httpx.Client, name: str, kind: str) -> None:
    response = client.get(f"/docs/assets/{name}")
    assert response.headers["Content-Type"].partition(";")[0] in {kind, kind.replace("text", "application")}


@pytest.mark.parametrize("name", ["nothing.js", "%00", "..%2F..%2Fdocs.py", "a" * 1000])
def test_what_is_no_asset_is_not_found(client: httpx.Client, name: str) -> None:
    response = client.get(f"/docs/assets/{name}")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
