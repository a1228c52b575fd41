from __future__ import annotations

from balancer.dispatch.retry_policy import CRASH_WINDOW_SECONDS, CrashWindow


def test_a_new_window_is_empty() -> None:
    assert CrashWindow().others(set(), 100.0) == 0


def test_the_given_workers_do_not_count_and_others_do() -> None:
    crashes = CrashWindow()
    for number, worker in enumerate(("0:1", "1:2", "0:3")):
        crashes.record(worker, 100.0 + number)
    assert crashes.others({"0:1"}, 103.0) == 2
    assert crashes.others({"0:1", "1:2", "0:3"}, 103.0) == 0


def test_old_crashes_do_not_count() -> None:
    crashes = CrashWindow()
    crashes.record("0:1", 100.0)
    assert crashes.others(set(), 100.0 + CRASH_WINDOW_SECONDS) == 1
    assert crashes.others(set(), 100.1 + CRASH_WINDOW_SECONDS) == 0
