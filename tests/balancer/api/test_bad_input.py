"""Invalid requests over HTTP to the real balancer: each is refused with a clear message before it reaches a worker.

The order matters in one place: the last tests check that no invalid request reached the worker.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.harness import TIMEOUT, Server, serve_stub

LIMIT = 5000
BODY_LIMIT = 262_144
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as server:
        yield server


def refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The value of `error`, after the checks that hold for every error response."""
    assert response.status_code == status, response.text[:1000]
    assert response.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"[A-Za-z0-9._:-]+", response.headers["X-Request-Id"])
    body = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) < 1000
    assert "Traceback" not in error["message"]
    assert "Value error" not in error["message"]
    return error


# Fields


class Raw(NamedTuple):
    """JSON text that Python's encoder would not write."""

    text: str


@dataclass(frozen=True)
class Field:
    """An invalid value of one field of a body, and the error that it causes."""

    role: str
    """The key of the field in `SURFACES`, or its name if that is the same in all bodies."""
    value: object
    message: str
    code: str = "invalid_request"
    status: int = 400
    surfaces: tuple[str, ...] = ("/tts", "/tts-json", "/v1/audio/speech")


OWN = ("/tts", "/tts-json")
OPENAI = ("/v1/audio/speech",)
TTS_FIELDS = {"text": "text", "voice": "voice", "format": "format"}
SURFACES: Mapping[str, tuple[dict[str, object], Mapping[str, str]]] = {
    "/tts": ({"text": "Hello."}, TTS_FIELDS),
    "/tts-json": ({"text": "Hello."}, TTS_FIELDS),
    "/v1/audio/speech": (
        {"model": "tts-1", "input": "Hello.", "voice": "alloy"},
        {"text": "input", "voice": "voice", "format": "response_format"},
    ),
}

NOT_STRINGS = (Raw("1"), Raw("1.5"), Raw("true"), Raw("[]"), Raw('["a"]'), Raw("null"))

INVALID_FIELDS = [
    Field("text", "", "is empty"),
    Field("text", " \n\t\r\u00a0\u3000", "is empty"),
    Field("text", "a" * (LIMIT + 1), f"{LIMIT + 1} characters; the limit is {LIMIT}", "text_too_long"),
    Field("text", "\U0001f600" * LIMIT + "ab", f"{LIMIT + 2} characters; the limit is {LIMIT}", "text_too_long"),
    Field("text", "?!… — “”", "no letter or digit", surfaces=OWN),
    Field("text", "\U0001f600\U0001f389\u200d", "no letter or digit", surfaces=OWN),
    Field("text", Raw(r'"Hello \ud800 you"'), "lone surrogate at character 6"),
    Field("text", Raw(r'"\udc00\ud800"'), "lone surrogate at character 0"),
    Field("text", "a\0b", "control character (U+0000) at character 1"),
    Field("text", "<!-- nothing -->", "has nothing to speak", "nothing_to_speak"),
    Field("text", "[pause 2s] [laugh]", "has nothing to speak", "nothing_to_speak"),
    Field("text", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "in another script than 'en'", "unsupported_script"),
    Field("text", "\u041f\u0440\u0438\u0432\u0435\u0442, world", "its script is Latin", "unsupported_script"),
    Field("normalize", "yes", "valid boolean"),
    *(Field("text", value, "valid string") for value in (*NOT_STRINGS, Raw("{}")) if value.text != "null"),
    Field("text", None, "Field required"),
    Field("voice", "nobody", "there is no voice 'nobody'; there are: default", "voice_not_found"),
    Field("voice", "Defaults", "there are: default", "voice_not_found"),
    Field("voice", "../../../etc/passwd", "there are: default", "voice_not_found"),
    Field("voice", "\n", "there are: default", "voice_not_found"),
    Field("voice", "", "at least 1 character"),
    Field("voice", "v" * 201, "at most 200 characters"),
    Field("voice", Raw(r'"\ud800"'), "lone surrogate at character 0"),
    Field("voice", "default\0", "control character (U+0000) at character 7"),
    *(Field("voice", value, "valid string") for value in NOT_STRINGS if value.text != "null"),
    Field("voice", {}, '{"id": name}', surfaces=OPENAI),
    Field("voice", {"id": "alloy", "name": "alloy"}, '{"id": name}', surfaces=OPENAI),
    Field("voice", {"id": 5}, "valid string", surfaces=OPENAI),
    Field("voice", {"id": "nobody"}, "there are: default", "voice_not_found", surfaces=OPENAI),
    Field("voice", {"id": "alloy"}, "valid string", surfaces=OWN),
    Field("character", "nobody", "there is no voice 'nobody'; there are: default", "voice_not_found", surfaces=OWN),
    Field("character", Raw(r'"\ud800"'), "lone surrogate", surfaces=OWN),
    Field("character", "", "at least 1 character", surfaces=OWN),
    Field("character", 5, "valid string", surfaces=OWN),
    Field("format", "ogg", "'mp3', 'opus', 'aac', 'flac', 'wav' or 'pcm'"),
    Field("format", "", "'mp3', 'opus', 'aac', 'flac', 'wav' or 'pcm'"),
    Field("format", Raw(r'"\ud800"'), "lone surrogate"),
    *(
        Field("format", value, "'mp3', 'opus', 'aac', 'flac', 'wav' or 'pcm'")
        for value in NOT_STRINGS
        if value.text != "null"
    ),
    Field("stream_format", "events", "'audio' or 'sse'", surfaces=OPENAI),
    Field("stream_format", Raw(r'"\ud800"'), "lone surrogate", surfaces=OPENAI),
    *(Field("stream", Raw(value), "valid boolean") for value in ('"true"', "1", "[]")),
    *(Field("speed", Raw(value), "greater than or equal to 0.25") for value in ("0", "-1", "0.2499", "-1e99")),
    *(Field("speed", Raw(value), "less than or equal to 4") for value in ("5", "4.0001", "1e99")),
    *(Field("speed", Raw(value), "finite number") for value in ("NaN", "Infinity", "-Infinity", "1e999")),
    *(Field("speed", Raw(value), "valid number") for value in ('"1"', "true", "[]", "{}", "1" + 400 * "0")),
    *(Field("seed", Raw(value), "greater than or equal to 0") for value in ("-1", "-4294967296")),
    *(Field("seed", Raw(value), "less than 4294967296") for value in ("4294967296", "1" + 400 * "0")),
    *(Field("seed", Raw(value), "valid integer") for value in ("1.5", '"1"', "true", "1e3", "NaN", "[]", "{}")),
    Field("model", "gpt-5", "there is no model 'gpt-5' here; there are: hibari, tts-1", "model_not_found", 404),
    Field("model", "", "at least 1 character"),
    Field("model", Raw(r'"\ud800"'), "lone surrogate"),
    *(Field("model", value, "valid string") for value in NOT_STRINGS if value.text != "null"),
    Field("temperature", 0.7, "unknown field 'temperature'; this request takes", "unknown_parameter", surfaces=OWN),
    Field("temperature", 0.7, "the parameters of engine 'hibari': none", "unknown_parameter", surfaces=OWN),
    Field(
        "instructions",
        "Whisper.",
        "unknown field 'instructions'; this request takes",
        "unknown_parameter",
        surfaces=OWN,
    ),
    Field("instructions", "a" * 4097, "at most 4096 characters", surfaces=OPENAI),
    Field("x", {"y": []}, "unknown field 'x'", "unknown_parameter"),
    Field("", 1, "unknown field ''", "unknown_parameter"),
    Field("ключ", 1, "unknown field 'ключ'", "unknown_parameter"),
    Field("input", "Hello.", "deadline_ms, normalize, text,", "unknown_parameter", surfaces=OWN),
    Field("text_", "x", "deadline_ms, normalize, model, input,", "unknown_parameter", surfaces=OPENAI),
]

CASES = [
    pytest.param(case, path, id=f"{path}-{number}")
    for number, case in enumerate(INVALID_FIELDS)
    for path in case.surfaces
]


def body(path: str, **fields: object) -> bytes:
    """The valid body of that path, with these fields changed."""
    values = SURFACES[path][0] | fields
    pairs = (
        f"{json.dumps(name)}:{value.text if isinstance(value, Raw) else json.dumps(value)}"
        for name, value in values.items()
    )
    return f"{{{','.join(pairs)}}}".encode()


@pytest.mark.parametrize(("case", "path"), CASES)
def test_an_invalid_field_is_named(server: Server, case: Field, path: str) -> None:
    name = SURFACES[path][1].get(case.role, case.role)
    response = server.client.post(path, content=body(path, **{name: case.value}), headers=JSON)
    error = refusal(response, case.status, case.code)
    assert case.message in error["message"]
    assert error["param"] == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [(r"\ud800", r"\ud800"), (r"a\u0000b", r"a\x00b"), (r"a\u000ab", r"a\nb"), ("x" * 101, "x" * 100)],
)
@pytest.mark.parametrize("path", SURFACES)
def test_an_unprintable_or_long_field_name_is_quoted_safely(server: Server, path: str, name: str, shown: str) -> None:
    content = body(path)[:-1] + f',"{name}":1}}'.encode()
    error = refusal(server.client.post(path, content=content, headers=JSON), 400, "unknown_parameter")
    assert error["message"] == f"unknown field '{shown}'"
    assert error["param"] == shown


@pytest.mark.parametrize("path", SURFACES)
def test_the_text_is_required(server: Server, path: str) -> None:
    values, names = SURFACES[path]
    remaining = {name: value for name, value in values.items() if name != names["text"]}
    error = refusal(server.client.post(path, json=remaining), 400, "invalid_request")
    assert (error["param"], error["message"]) == (names["text"], f"{names['text']}: Field required")


@pytest.mark.parametrize("path", OWN)
def test_two_voices_in_one_request_must_be_the_same(server: Server, path: str) -> None:
    response = server.client.post(path, json={"text": "Hello.", "voice": "alloy", "character": "ash"})
    error = refusal(response, 400, "invalid_request")
    assert error["param"] == "voice"
    assert "character" in error["message"]


@pytest.mark.parametrize("path", OWN)
def test_all_invalid_fields_are_reported_at_once(server: Server, path: str) -> None:
    error = refusal(server.client.post(path, json={"text": "", "speed": 9, "seed": -1}), 400, "invalid_request")
    assert all(f"{name}: " in error["message"] for name in ("text", "speed", "seed"))


# Bodies

DEEP = 10_000
BODIES = [
    (b"", "not JSON"),
    (b"   ", "not JSON"),
    (b"hello", "not JSON: Expecting value at line 1, column 1"),
    (b"{", "not JSON"),
    (b'{"text": "Hel', "not JSON: Unterminated string"),
    (b'{"text": "Hello."', "not JSON: Expecting ',' delimiter at line 1, column 18"),
    (b'{"text": "Hello.",}', "not JSON"),
    (b'{"text": "Hello."} {}', "not JSON: Extra data at line 1, column 20"),
    (b"{'text': 'Hello.'}", "not JSON"),
    (b"text=Hello.", "not JSON"),
    (b'{"text": "a\x00b"}', "not JSON: Invalid control character at line 1"),
    (b'{"text": "a\nb"}', "not JSON: Invalid control character at line 1"),
    (rb'{"text": "\ud8"}', "not JSON"),
    (b"[]", "must be a JSON object"),
    (b'[{"text": "Hello."}]', "must be a JSON object"),
    (b'"Hello."', "must be a JSON object"),
    (b"null", "must be a JSON object"),
    (b"true", "must be a JSON object"),
    (b"1.5", "must be a JSON object"),
    (b"NaN", "must be a JSON object"),
    (b'{"text": "Hello.", "seed": ' + b"1" * 5000 + b"}", "too many digits"),
    (b"[" * DEEP, "nested too deeply"),
    (b"[" * DEEP + b"]" * DEEP, "nested too deeply"),
    (b'{"a":' * DEEP, "nested too deeply"),
    (b'{"text": ' + b"[" * DEEP + b"]" * DEEP + b"}", "nested too deeply"),
    (b'{"text": "\xff"}', "not UTF-8 (byte 10)"),
    (b'{"text": "\xed\xa0\x80"}', "not UTF-8 (byte 10)"),
    (b'{"text": "caf\xe9"}', "not UTF-8 (byte 13)"),
    (b'{"text": "\xc0\xaf"}', "not UTF-8"),
    ('{"text": "Hello."}'.encode("utf-16"), "not UTF-8 (byte 0)"),
]


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize(("content", "message"), BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_not_a_json_object(server: Server, path: str, content: bytes, message: str) -> None:
    error = refusal(server.client.post(path, content=content, headers=JSON), 400, "invalid_json")
    assert message in error["message"]
    assert error["param"] is None


@pytest.mark.parametrize("depth", [100, 500, 900, 950, 980, 1000, 1100, 3000])
def test_no_nesting_depth_causes_an_internal_error(server: Server, depth: int) -> None:
    content = b'{"text": "Hello.", "x": ' + b"[" * depth + b"]" * depth + b"}"
    response = server.client.post("/tts", content=content, headers=JSON)
    refusal(response, 400, response.json()["error"]["code"])


@pytest.mark.parametrize("path", SURFACES)
def test_a_body_with_too_large_a_content_length_is_not_read(server: Server, path: str) -> None:
    with connected(server) as client:
        client.sendall(request(path, f"Content-Length: {BODY_LIMIT + 1}"))
        error = refusal(response_of(client), 413, "body_too_large")
    assert str(BODY_LIMIT) in error["message"]


@pytest.mark.parametrize("path", SURFACES)
def test_an_endless_body_is_refused_at_the_limit(server: Server, path: str) -> None:
    piece = b" " * 4096
    chunk = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    with connected(server) as client:
        client.sendall(request(path, "Transfer-Encoding: chunked"))
        client.sendall(chunk * (BODY_LIMIT // len(piece)))
        client.sendall(b"1\r\n{\r\n")
        # Neither more data nor an end follows: the response must not wait for them.
        error = refusal(response_of(client), 413, "body_too_large")
    assert str(BODY_LIMIT) in error["message"]


def test_the_connection_works_after_a_body_that_is_too_large(server: Server) -> None:
    with httpx.Client(base_url=server.client.base_url, timeout=TIMEOUT, trust_env=False) as client:
        for _ in range(3):
            refusal(client.post("/tts", content=b"x" * (BODY_LIMIT * 2), headers=JSON), 413, "body_too_large")
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [
        (None, "none"),
        ("", "none"),
        ("text/plain", "text/plain"),
        ("text/json", "text/json"),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        ("multipart/form-data; boundary=x", "multipart/form-data"),
        ("application/json+x", "application/json+x"),
        ("application/jsonx", "application/jsonx"),
        ("application", "application"),
        ("é", "Ã©".lower()),
    ],
)
@pytest.mark.parametrize("path", SURFACES)
def test_a_body_of_another_media_type(server: Server, path: str, media_type: str | None, shown: str) -> None:
    headers = {} if media_type is None else {b"Content-Type": media_type.encode()}
    response = server.client.post(path, content=body(path), headers=headers)
    error = refusal(response, 415, "unsupported_media_type")
    assert "Content-Type: application/json" in error["message"]
    assert f"(got {shown})" in error["message"]


# Paths and methods


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("POST", "/nothing"),
        ("GET", "/v1"),
        ("GET", "/v1/models/hibari/more"),
        ("GET", "/docs/assets/nothing.js"),
        ("GET", "/docs/assets/%2e%2e/%2e%2e/pyproject.toml"),
        ("GET", "/%ff%00%0d%0a"),
        ("DELETE", "/v1/audio"),
    ],
)
def test_an_unknown_path(server: Server, method: str, path: str) -> None:
    error = refusal(server.client.request(method, path), 404, "not_found")
    assert "/docs" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/tts", {"POST"}),
        ("PUT", "/tts-json", {"POST"}),
        ("DELETE", "/v1/audio/speech", {"POST"}),
        ("OPTIONS", "/tts", {"GET", "HEAD", "POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("PATCH", "/metrics", {"GET", "HEAD"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_is_not_allowed(server: Server, method: str, path: str, allowed: set[str]) -> None:
    response = server.client.request(method, path)
    error = refusal(response, 405, "method_not_allowed")
    assert path in error["message"]
    assert set(re.split(", *", response.headers["Allow"])) == allowed


def test_an_unknown_model(server: Server) -> None:
    error = refusal(server.client.get("/v1/models/whisper-1"), 404, "model_not_found")
    assert "there are: hibari, tts-1, tts-1-hd, gpt-4o-mini-tts" in error["message"]


# Request ids


@pytest.mark.parametrize("offered", ["a", "0b4e1c6e-8f7c", "A.b_c:d-1", "x" * 128])
def test_a_valid_request_id_is_kept(server: Server, offered: str) -> None:
    for path in ("/health", "/nothing", "/tts"):
        assert server.client.get(path, headers={"X-Request-Id": offered}).headers["X-Request-Id"] == offered
    assert f" request={offered} " in server.log.read_text()


@pytest.mark.parametrize(
    "offered", [b"", b"x" * 129, b"a b", b"a/b", b'a"b', b"a,b", "é".encode(), b"a\tb", b"{}", b"%0a"]
)
def test_an_invalid_request_id_is_replaced(server: Server, offered: bytes) -> None:
    responses = [server.client.get("/health", headers={b"X-Request-Id": offered}) for _ in range(2)]
    first, second = (response.headers["X-Request-Id"] for response in responses)
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert first != second


# Last: no invalid request reached the worker


def test_no_invalid_request_reached_the_worker(server: Server) -> None:
    state = server.stub.state()
    assert (state.done, state.progress, state.in_flight) == (0, 0, ())
    metrics = server.client.get("/metrics").text
    assert "chorus_queue_wait_seconds_count" not in metrics, "no utterance was ever queued"
    assert server.client.get("/health").json()["workers"][0]["done"] == 0
    assert "Traceback" not in server.log.read_text()


VALID = [
    ("/tts", {}, {}),
    ("/tts", {}, {"voice": None, "character": None, "model": None, "seed": None}),
    ("/tts", {}, {"voice": "alloy", "character": "alloy"}),
    ("/tts", {}, {"text": "a" * LIMIT}),
    ("/tts", {}, {"text": "\U0001f600 1"}),
    ("/tts", {}, {"text": "a\x1bb\x7f\u0085\x0c\x93c\x94"}),
    ("/tts", {}, {"text": "a\x1bb\x7f\u0085", "normalize": False}),
    ("/v1/audio/speech", {}, {"model": "gpt-4o-mini-tts-2025-12-15", "instructions": "Whisper."}),
    ("/tts", {}, {"text": "one\ntwo\r\n\tthree"}),
    ("/tts", {}, {"text": Raw(r'"\ud83d\ude00 a"')}),
    ("/tts", {}, {"seed": 2**32 - 1, "speed": 4}),
    ("/tts", {}, {"seed": 0, "speed": 0.25, "format": "pcm"}),
    ("/tts", {"Content-Type": "Application/JSON; charset=utf-8"}, {}),
    ("/v1/audio/speech", {}, {"voice": {"id": "alloy"}, "response_format": "flac", "stream_format": "audio"}),
    *(("/v1/audio/speech", {}, {"model": name}) for name in ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "hibari")),
]


@pytest.mark.parametrize(("path", "headers", "fields"), VALID, ids=range(len(VALID)))
def test_a_valid_request_reaches_the_worker(
    server: Server, path: str, headers: dict[str, str], fields: dict[str, object]
) -> None:
    before = server.stub.state().done
    response = server.client.post(path, content=body(path, **fields), headers=JSON | headers)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("audio/")
    assert float(response.headers["X-Audio-Seconds"]) > 0
    assert server.stub.state().done > before


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_body_of_exactly_the_limit_is_read(server: Server, start: bytes) -> None:
    content = start + body("/tts").ljust(BODY_LIMIT - len(start))
    assert len(content) == BODY_LIMIT
    assert server.client.post("/tts", content=content, headers=JSON).status_code == 200
    assert server.client.post("/tts", content=iter([content]), headers=JSON).status_code == 200


# Plain sockets, for requests that httpx would not send


def connected(server: Server) -> socket.socket:
    url = server.client.base_url
    assert url.port is not None
    return socket.create_connection((url.host, url.port), timeout=TIMEOUT)


def request(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode()


def response_of(client: socket.socket) -> httpx.Response:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(client)
    head, _, content = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])  # type: ignore[arg-type]
    while len(content) < int(headers["Content-Length"]):
        content += _more(client)
    return httpx.Response(int(status.split()[1]), headers=headers, content=content)


def _more(client: socket.socket) -> bytes:
    data = client.recv(65536)
    assert data, "the server closed the connection without a response"
    return data
