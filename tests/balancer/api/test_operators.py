"""Who is an operator, and `POST /drain` and `POST /resume`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from balancer.access.api_keys import ApiKey, Role, digest_of, new_key, write_keys
from tests.support.harness import TIMEOUT, Server, serve_stub, wait_until

ROUTES = [
    ("POST", "/drain"),
    ("POST", "/resume"),
    ("POST", "/v1/audio/voices"),
    ("GET", "/v1/audio/voices/default"),
    ("DELETE", "/v1/audio/voices/default"),
]
ENVIRONMENT_KEY = "a-key-of-the-environment"


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """A new secret for each role, by its name."""
    return {role.value: new_key() for role in Role}


@pytest.fixture(scope="module")
def server(keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(file, [ApiKey(name=role, digest=digest_of(keys[role]), role=Role(role)) for role in keys])
    with serve_stub(keys_file=file, api_keys=ENVIRONMENT_KEY, log_format="json") as server:
        yield server


@pytest.fixture
def operator(server: Server, keys: dict[str, str]) -> Iterator[httpx.Client]:
    headers = {"X-API-Key": keys["operator"]}
    with httpx.Client(base_url=server.url, headers=headers, timeout=TIMEOUT, trust_env=False) as client:
        yield client


def refused(response: httpx.Response) -> str:
    assert response.status_code == 403
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("permission_error", "operator_key_required")
    message: str = error["message"]
    return message


def log_lines(log: Path, request_id: str) -> list[dict[str, object]]:
    """The lines about one request."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("request") == request_id]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_clients_key_is_refused(server: Server, keys: dict[str, str], method: str, path: str) -> None:
    for key in (keys["client"], ENVIRONMENT_KEY):
        message = refused(server.client.request(method, path, headers={"X-API-Key": key}))
        assert "your API key has the role 'client'" in message
        assert "--role operator" in message
    assert server.client.request(method, path).status_code == 401
    assert server.client.get("/ready").json()["draining"] is False


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_client_is_refused_before_its_body_is_read(
    server: Server, keys: dict[str, str], method: str, path: str
) -> None:
    headers = {"X-API-Key": keys["client"], "Content-Type": "application/json", "Content-Encoding": "gzip"}
    refused(server.client.request(method, path, headers=headers, content=b"x" * 300_000))


def test_without_keys_nobody_is_an_operator() -> None:
    with serve_stub() as server:
        for method, path in ROUTES:
            message = refused(server.client.request(method, path, headers={"X-API-Key": "any"}))
            assert "`chorus keys add NAME --role operator`" in message
        assert server.client.get("/ready").json()["draining"] is False


def test_an_operator_drains_and_resumes(server: Server, operator: httpx.Client) -> None:
    drained = operator.post("/drain")
    assert (drained.status_code, drained.json()) == (200, {"draining": True, "idle": True})
    assert server.client.get("/ready").status_code == 503
    assert operator.post("/tts", json={"text": "Hello."}).status_code == 200, "requests that still arrive are served"
    resumed = operator.post("/resume")
    assert (resumed.status_code, resumed.json()) == (200, {"draining": False, "idle": True})
    assert server.client.get("/ready").status_code == 200


def test_the_control_socket_and_the_network_see_the_same(server: Server, operator: httpx.Client) -> None:
    operator.post("/drain")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.log.parent / "control.sock"))) as control:
        assert control.get("http://control/state").json()["draining"] is True
        assert control.post("http://control/resume").json()["draining"] is False
    wait_until(lambda: "control socket" in server.log.read_text())
    (line,) = (json.loads(line) for line in server.log.read_text().splitlines() if "control socket" in line)
    assert (line["message"], line["caller"]) == ("POST /resume", "control socket")
    assert server.client.get("/ready").status_code == 200


def test_an_operators_action_is_one_line_that_says_who_and_what(
    server: Server, operator: httpx.Client, keys: dict[str, str]
) -> None:
    operator.post("/drain", headers={"X-Request-Id": "drained"})
    operator.post("/resume", headers={"X-Request-Id": "resumed"})
    operator.delete("/v1/audio/voices/ada%0A2026", headers={"X-Request-Id": "removed"})
    server.client.post("/drain", headers={"X-Request-Id": "refused", "X-API-Key": keys["client"]})
    wait_until(lambda: bool(log_lines(server.log, "refused")))
    for request_id, message, caller in (
        ("drained", "POST /drain 200", "operator"),
        ("resumed", "POST /resume 200", "operator"),
        ("removed", "DELETE /v1/audio/voices/{name} 404", "operator"),
        ("refused", "POST /drain 403", "client"),
    ):
        (line,) = log_lines(server.log, request_id)
        assert (line["message"], line["caller"]) == (message, caller)
    (line,) = log_lines(server.log, "removed")
    assert line["voice"] == "ada\n2026"


def test_an_operators_key_is_a_clients_too(operator: httpx.Client) -> None:
    assert operator.get("/v1/audio/voices").status_code == 200
    assert "workers" in operator.get("/health").json()
