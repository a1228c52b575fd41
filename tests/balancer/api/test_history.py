"""`GET /history` of a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from balancer.api.history import HistoryReport, report
from balancer.metrics import Metrics
from balancer.operations.history import History
from balancer.operations.history_sampler import HistorySampler
from balancer.scheduling.priority import Priority
from tests.support.clock import Clock
from tests.support.harness import Server, serve_stub, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as server:
        yield server


def get(server: Server, **query: float) -> dict[str, Any]:
    response = server.client.get("/history", params=query)
    assert response.status_code == 200
    HistoryReport.model_validate(response.json())
    answer: dict[str, Any] = response.json()
    return answer


def test_requests_appear_in_it(server: Server) -> None:
    for _ in range(3):
        server.client.post("/tts", json={"text": "Hello."}).raise_for_status()
    assert server.client.post("/tts", json={"text": ""}).status_code == 400

    def seen() -> bool:
        minute = get(server)["lastMinute"]
        speech = {} if minute is None else minute["requests"]["speech"]
        return (speech.get("ok"), speech.get("invalid")) == (3, 1)

    wait_until(seen)
    answer = get(server)
    minute = answer["lastMinute"]
    assert minute["audioSeconds"] > 0
    assert minute["cache"]["miss"] == 3
    assert 0 < minute["answer"]["p50"] <= minute["answer"]["p99"]
    assert answer["seconds"]["slots"]["total"][-1] == 1
    assert 0 < minute["slots"]["total"] <= 1, "a mean: the worker may have been found after the first second"
    assert sum(answer["seconds"]["requests"]["speech"]["ok"]) == 3
    assert answer["lastHour"]["requests"]["speech"]["ok"] == 3


def test_only_what_is_new(server: Server) -> None:
    wait_until(lambda: len(get(server)["seconds"]["at"]) > 1)
    latest = get(server)["latest"]
    assert all(at > latest for at in get(server, since=latest)["seconds"]["at"])
    assert get(server, since=latest + 100)["seconds"]["at"] == []


def test_nothing_is_sent_again(server: Server) -> None:
    def unchanged() -> bool:
        first = server.client.get("/history")
        again = server.client.get("/history", headers={"If-None-Match": first.headers["ETag"]})
        return again.status_code == 304 and not again.content

    wait_until(unchanged)


@pytest.mark.parametrize("since", ["", "yesterday", "nan", "inf", "-1"])
def test_a_time_that_is_none(server: Server, since: str) -> None:
    response = server.client.get("/history", params={"since": since})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "since")


def test_where_keys_are_required_it_needs_one() -> None:
    with serve_stub(api_keys="a-key-of-the-environment") as server:
        assert server.client.get("/history").status_code == 401
        headers = {"X-API-Key": "a-key-of-the-environment"}
        assert server.client.get("/history", headers=headers).status_code == 200


class _Idle:
    """The state of a host without workers."""

    depths = dict.fromkeys(Priority, 0)
    slots = free_slots = 0


def test_every_value_is_described() -> None:
    """Also of a server in which everything has happened once, and of one in which nothing has."""
    metrics, clock = Metrics("hibari"), Clock()
    history = History(clock, 1e9)
    sampler = HistorySampler(history, metrics, _Idle())  # type: ignore[arg-type]
    HistoryReport.model_validate(report(history))
    for _ in range(70):
        clock.now += 1
        metrics.record_refusal("queue_full")
        metrics.set_job_counts({"queued": 1})
        metrics.record_response("/tts", 200, 0.1)
        history.add(sampler.sample())
    described = HistoryReport.model_validate(report(history))
    assert described.minutes.refusals["queue_full"] == [20]
    assert described.last_hour is not None
    assert described.last_hour.jobs_kept["queued"] == pytest.approx(1)
