from __future__ import annotations

from balancer.dispatch.crash_window import LATELY_SECONDS, Deaths


def test_nobody_died() -> None:
    assert Deaths().others(set(), 100.0) == 0


def test_victims_do_not_count_and_others_do() -> None:
    deaths = Deaths()
    for number, worker in enumerate(("0:1", "1:2", "0:3")):
        deaths.note(worker, 100.0 + number)
    assert deaths.others({"0:1"}, 103.0) == 2
    assert deaths.others({"0:1", "1:2", "0:3"}, 103.0) == 0


def test_what_is_long_past_is_forgotten() -> None:
    deaths = Deaths()
    deaths.note("0:1", 100.0)
    assert deaths.others(set(), 100.0 + LATELY_SECONDS) == 1
    assert deaths.others(set(), 100.1 + LATELY_SECONDS) == 0
