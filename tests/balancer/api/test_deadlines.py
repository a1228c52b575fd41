"""Deadlines and priorities over HTTP: a real balancer, and stub workers that are real processes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.harness import Server, serve_stub, wait_until


@pytest.fixture
def server() -> Iterator[Server]:
    with serve_stub() as running:
        yield running


def speak(server: Server, text: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return server.client.post("/tts", json={"text": text} | fields, headers=headers)


def queue_depth(server: Server) -> int:
    depth: int = server.client.get("/health").json()["queueDepth"]
    return depth


def running(server: Server) -> bool:
    return bool(server.stub.state().in_flight)


@pytest.mark.parametrize(
    ("headers", "fields"),
    [({"X-Deadline-Ms": "300"}, {}), ({}, {"deadline_ms": 300}), ({"X-Deadline-Ms": "300"}, {"deadline_ms": 60_000})],
    ids=["header", "field", "the earlier of both"],
)
def test_what_is_not_done_by_its_deadline_is_given_up(
    server: Server, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    answer = speak(server, "hang", headers, **fields)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    wait_until(lambda: not running(server))


def test_what_cannot_be_done_by_its_deadline_is_refused_at_once() -> None:
    with serve_stub(sjf_window=0) as server, ThreadPoolExecutor(2) as clients:
        first = clients.submit(speak, server, "slow")
        wait_until(lambda: running(server))
        second = clients.submit(speak, server, "A longer text. " * 300)
        wait_until(lambda: queue_depth(server) == 1)
        late = speak(server, "Hello.", deadline_ms=2_000)
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "deadline_unreachable"
        assert int(late.headers["Retry-After"]) > 0
        (server.log.parent / "go").touch()
        assert first.result().status_code == second.result().status_code == 200


def test_interactive_work_goes_before_batch_work(server: Server) -> None:
    order: list[str] = []

    def ask(name: str, **fields: Any) -> None:
        assert speak(server, name, **fields).status_code == 200
        order.append(name)

    with ThreadPoolExecutor(3) as clients:
        first = clients.submit(speak, server, "slow")
        wait_until(lambda: running(server))
        batch = clients.submit(ask, "batch", priority="batch")
        wait_until(lambda: queue_depth(server) == 1)
        interactive = clients.submit(ask, "interactive")
        wait_until(lambda: queue_depth(server) == 2)
        (server.log.parent / "go").touch()
        for call in (first, batch, interactive):
            call.result()
    assert order == ["interactive", "batch"]


@pytest.mark.parametrize("value", ["", "soon", "0", "-5", "nan", "inf"])
def test_a_deadline_that_is_none_is_refused(server: Server, value: str) -> None:
    answer = speak(server, "Hello.", {"X-Deadline-Ms": value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Deadline-Ms"


@pytest.mark.parametrize(("field", "value"), [("deadline_ms", 0), ("deadline_ms", "soon"), ("priority", "urgent")])
def test_fields_that_say_nothing_usable_are_refused(server: Server, field: str, value: Any) -> None:
    fields: dict[str, Any] = {field: value}
    answer = speak(server, "Hello.", **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


def test_a_whole_number_of_milliseconds_is_fine(server: Server) -> None:
    assert speak(server, "Hello.", {"X-Deadline-Ms": "60000"}, deadline_ms=60_000).status_code == 200
