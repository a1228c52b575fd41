from __future__ import annotations

from balancer.http.transfer_limits import ResponseWatch, TransferDeadline
from balancer.settings.http import HttpSettings


def test_a_transfer_may_pause_but_not_drip() -> None:
    deadline = TransferDeadline(20, bytes_per_second=100)
    deadline.start(now=0)
    deadline.advance(1_000_000, now=15)
    assert deadline.at == 35, "it is never further ahead than a pause may last"
    for now in range(16, 60):
        deadline.advance(10, now)
    assert 35 < deadline.at < 60


def test_a_transfer_at_the_minimum_rate_goes_on() -> None:
    deadline = TransferDeadline(20, bytes_per_second=100)
    deadline.start(now=0)
    for now in range(1, 1000):
        deadline.advance(100, now)
        assert now <= deadline.at


def test_a_response_is_overdue_when_nothing_of_it_is_taken() -> None:
    watch = ResponseWatch(None, HttpSettings(write_seconds=10))
    assert not watch.is_overdue(100_000, now=0)
    assert not watch.is_overdue(50_000, now=9)
    assert not watch.is_overdue(50_000, now=19)
    watch.all_sent()
    assert not watch.is_overdue(50_000, now=30)
    assert not watch.is_overdue(70_000, now=40), "more was written, nothing read"
    assert watch.is_overdue(70_000, now=41)
