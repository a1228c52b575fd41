from __future__ import annotations

import pytest

from balancer.operations.history import MINUTES_KEPT, SECONDS_KEPT, History, Totals
from balancer.time_histogram import TimeHistogram
from tests.support.clock import Clock

NOON = 1_800_000_000.0
"""The beginning of a minute, in Unix time."""


class Server:
    """Something that counts, and is sampled once a second."""

    def __init__(self, started_at: float = NOON) -> None:
        self.clock = Clock()
        self.history = History(self.clock, started_at)
        self.counts: dict[str, float] = {"requests": 0.0}
        self.levels: dict[str, float] = {"queue": 0.0}
        self.times = TimeHistogram()
        self.sample()

    def sample(self) -> None:
        times = {"answer": list(self.times.counts)}
        self.history.add(Totals(counts=dict(self.counts), levels=dict(self.levels), times=times))

    def run(self, seconds: int = 1, *, requests: int = 0, taking: float = 0.1) -> None:
        """Let so many seconds pass, with as many requests in each."""
        for _ in range(seconds):
            self.counts["requests"] += requests
            for _ in range(requests):
                self.times.observe(taking)
            self.clock.now += 1
            self.sample()


@pytest.fixture
def server() -> Server:
    return Server()


def test_before_the_first_second_there_is_nothing(server: Server) -> None:
    assert server.history.last_minute is None
    assert server.history.last_hour is None
    assert server.history.latest == NOON
    assert server.history.seconds()["requests"] == ()


def test_counts_are_those_of_each_second(server: Server) -> None:
    for requests in (3, 0, 5):
        server.run(requests=requests)
    columns = server.history.seconds()
    assert columns["at"] == [NOON + 1, NOON + 2, NOON + 3]
    assert columns["seconds"] == [1, 1, 1]
    assert columns["requests"] == (3, 0, 5)
    assert server.history.latest == NOON + 3


def test_percentiles_are_those_of_each_second(server: Server) -> None:
    server.run(requests=10, taking=0.1)
    server.run()
    server.run(requests=10, taking=2.0)
    first, quiet, last = server.history.seconds()["answer.p95"]
    assert first == pytest.approx(0.1, rel=0.2)
    assert quiet is None
    assert last == pytest.approx(2.0, rel=0.2)


def test_percentiles_of_a_minute_are_of_all_its_requests_not_means_of_percentiles(server: Server) -> None:
    server.run(59, requests=10, taking=0.1)
    server.run(1, requests=30, taking=5.0)
    assert server.history.minutes()["answer.p50"][0] == pytest.approx(0.1, rel=0.2)
    assert server.history.minutes()["answer.p99"][0] == pytest.approx(5.0, rel=0.2)
    minute = server.history.last_minute
    assert minute is not None
    assert minute["answer.p99"] == server.history.minutes()["answer.p99"][0]


def test_a_minute_has_the_sum_of_its_counts_and_the_mean_of_its_levels(server: Server) -> None:
    for second in range(60):
        server.levels["queue"] = float(second % 2)
        server.run(requests=2)
    columns = server.history.minutes()
    assert columns["at"] == [NOON + 60]
    assert columns["requests"] == (120,)
    assert columns["queue"] == (0.5,)


def test_minutes_end_with_those_of_the_clock() -> None:
    server = Server(NOON + 45)
    server.run(80)
    assert server.history.minutes()["at"] == [NOON + 60, NOON + 120]
    assert server.history.minutes()["seconds"] == [15, 60]


def test_a_late_sample_makes_a_longer_interval(server: Server) -> None:
    server.run()
    server.clock.now += 4
    server.run(requests=7)
    columns = server.history.seconds()
    assert columns["seconds"] == [1, 5]
    assert columns["requests"] == (0, 7)


def test_only_what_ended_after_a_time(server: Server) -> None:
    server.run(70, requests=1)
    since = server.history.latest
    server.run(requests=4)
    assert server.history.seconds(since)["requests"] == (4,)
    assert server.history.minutes(since)["requests"] == ()
    assert server.history.minutes(NOON)["requests"] == (60,)


def test_what_is_counted_for_the_first_time_was_0_before(server: Server) -> None:
    server.run(2)
    server.counts["refusals"] = 3.0
    server.levels["workers"] = 2.0
    assert server.history.seconds().keys() == {
        "at", "seconds", "requests", "queue", "answer.p50", "answer.p95", "answer.p99"
    }  # fmt: skip
    server.run()
    assert server.history.seconds()["refusals"] == (0, 0, 3)
    assert server.history.seconds()["workers"] == (0, 0, 2)
    server.run(SECONDS_KEPT)
    assert server.history.seconds()["refusals"] == (0,) * SECONDS_KEPT


def test_the_rings_are_bounded(server: Server) -> None:
    server.run(60 * (MINUTES_KEPT + 2), requests=1)
    assert len(server.history.seconds()["at"]) == SECONDS_KEPT
    assert len(server.history.minutes()["at"]) == MINUTES_KEPT
    minute, hour = server.history.last_minute, server.history.last_hour
    assert minute is not None
    assert (minute["seconds"], minute["requests"]) == (60, 60)
    assert hour is not None
    assert (hour["seconds"], hour["requests"]) == (3600, 3600)


def test_the_last_hour_has_the_minute_that_has_begun(server: Server) -> None:
    server.run(90, requests=1)
    hour = server.history.last_hour
    assert hour is not None
    assert (hour["seconds"], hour["requests"]) == (90, 90)
    assert hour["at"] == server.history.latest


def test_numbers_have_few_digits(server: Server) -> None:
    server.counts["audio"] = 0.0
    server.run()
    server.counts["audio"] = 1 / 3
    server.run()
    assert server.history.seconds()["audio"] == (0, 0.3333)
