"""Deadlines and priorities over HTTP, with a real balancer and a stub worker process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.harness import Server, serve_stub, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a stub worker, shared by the tests of this module: each leaves it idle."""
    with serve_stub() as running:
        yield running


def tts(server: Server, text: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return server.client.post("/tts", json={"text": text} | fields, headers=headers)


def queue_depth(server: Server) -> int:
    depth: int = server.client.get("/health").json()["queueDepth"]
    return depth


def running(server: Server) -> bool:
    return bool(server.stub.state().in_flight)


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"X-Deadline-Ms": "1000"}, {}),
        ({}, {"deadline_ms": 1000}),
        ({"X-Deadline-Ms": "1000"}, {"deadline_ms": 60_000}),
    ],
    ids=["header", "field", "the earlier of both"],
)
def test_a_request_past_its_deadline_is_cancelled(
    server: Server, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    response = tts(server, "hang", headers, **fields)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    wait_until(lambda: not running(server))


@pytest.mark.parametrize(("headers", "most"), [({}, 30.0), ({"X-Deadline-Ms": "20000"}, 20.0)])
def test_the_worker_knows_when_nobody_waits_any_more(server: Server, headers: dict[str, str], most: float) -> None:
    assert tts(server, "Hello.", headers).status_code == 200
    limit = server.stub.last_utterance().time_limit
    assert limit is not None
    assert most - 10 < limit <= most


def test_an_unreachable_deadline_is_refused_at_once() -> None:
    with serve_stub(sjf_window=0) as server, ThreadPoolExecutor(11) as clients:
        first = clients.submit(tts, server, "slow")
        wait_until(lambda: running(server))
        others = [clients.submit(tts, server, f"Text {number}, " * 35) for number in "ABCDEFGHIJ"]
        wait_until(lambda: queue_depth(server) == len(others))
        late = tts(server, "Hello.", deadline_ms=2_000)
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "deadline_unreachable"
        assert int(late.headers["Retry-After"]) > 0
        (server.log.parent / "go").touch()
        assert {response.result().status_code for response in (first, *others)} == {200}


def test_a_text_too_long_for_its_deadline_is_refused_at_once(server: Server) -> None:
    before = server.stub.state().done
    response = tts(server, "A longer text is here. " * 200, deadline_ms=2_000)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "deadline_too_short")
    assert server.stub.state().done == before


def test_interactive_requests_go_before_batch_requests(server: Server) -> None:
    with ThreadPoolExecutor(3) as clients:
        first = clients.submit(tts, server, "slow")
        wait_until(lambda: running(server))
        batch = clients.submit(tts, server, "batch", priority="batch")
        wait_until(lambda: queue_depth(server) == 1)
        interactive = clients.submit(tts, server, "interactive")
        wait_until(lambda: queue_depth(server) == 2)
        (server.log.parent / "go").touch()
        assert {call.result().status_code for call in (first, batch, interactive)} == {200}
    # The worker has one slot. The order of the answers would be that in which the clients' threads read them.
    assert server.stub.last_utterance().text == "batch"


@pytest.mark.parametrize("value", ["", "soon", "0", "-5", "nan", "inf"])
def test_an_invalid_deadline_is_refused(server: Server, value: str) -> None:
    response = tts(server, "Hello.", {"X-Deadline-Ms": value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "X-Deadline-Ms"


@pytest.mark.parametrize(("field", "value"), [("deadline_ms", 0), ("deadline_ms", "soon"), ("priority", "urgent")])
def test_invalid_fields_are_refused(server: Server, field: str, value: Any) -> None:
    fields: dict[str, Any] = {field: value}
    response = tts(server, "Hello.", **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


def test_a_whole_number_of_milliseconds_is_accepted(server: Server) -> None:
    assert tts(server, "Hello.", {"X-Deadline-Ms": "60000"}, deadline_ms=60_000).status_code == 200
