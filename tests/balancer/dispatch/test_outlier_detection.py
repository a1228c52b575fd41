"""The judgement of workers by their latest attempts, without processes."""

from __future__ import annotations

import pytest

from balancer.dispatch.outlier_detection import (
    ALONE_PAUSE_SECONDS,
    MAX_BARREN_TEXTS,
    MAX_BARREN_TEXTS_ALONE,
    WINDOW,
    WINDOW_SECONDS,
    OutlierDetector,
)

NOW = 1000.0
SICK, WELL = "0:10", "1:11"


def reason(detector: OutlierDetector, worker: str = SICK, *, now: float = NOW, others: int = 1) -> str | None:
    return detector.reason_to_eject(worker, now, others_serving=others, workers=others + 1)


def after_failures(count: int, detector: OutlierDetector | None = None) -> OutlierDetector:
    """A worker that failed on so many utterances, which succeeded on another."""
    detector = detector or OutlierDetector(3)
    for _ in range(count):
        detector.record_failure(SICK, "Hello.")
        detector.record_success(WELL, [SICK], NOW)
    return detector


def test_a_worker_that_fails_where_another_succeeds_is_an_outlier() -> None:
    assert reason(after_failures(2)) is None
    assert reason(after_failures(3)) == "3 of its latest 3 attempts failed, and others did not"
    assert reason(after_failures(3), WELL) is None


def test_a_worker_that_mostly_succeeds_is_none() -> None:
    detector = after_failures(3)
    for _ in range(4):
        detector.record_success(SICK, [], NOW)
    assert reason(detector) is None


def test_only_the_latest_attempts_count() -> None:
    detector = after_failures(WINDOW)
    for _ in range(WINDOW):
        detector.record_success(SICK, [], NOW)
    assert reason(detector) is None
    assert reason(after_failures(3), now=NOW + WINDOW_SECONDS + 1) is None


def test_utterances_that_fail_everywhere_count_only_where_nothing_succeeds_for_long() -> None:
    detector = OutlierDetector(3)
    for number in range(MAX_BARREN_TEXTS - 1):
        detector.record_failure(SICK, f"Text {number}.")
        detector.record_failure(WELL, f"Text {number}.")
    assert reason(detector) is None
    detector.record_failure(SICK, "The last one.")
    assert reason(detector) == f"{MAX_BARREN_TEXTS} different texts failed on it since its last success"
    detector.record_success(SICK, [], NOW)
    assert reason(detector) is None


def test_a_worker_stays_while_too_few_others_serve() -> None:
    detector = after_failures(3)
    assert detector.reason_to_eject(SICK, NOW, others_serving=1, workers=4) is None
    assert detector.reason_to_eject(SICK, NOW, others_serving=2, workers=4) is not None


def test_the_last_worker_is_restarted_once_a_minute_at_most() -> None:
    detector = OutlierDetector(3)
    for number in range(MAX_BARREN_TEXTS_ALONE):
        assert reason(detector, others=0) is None
        detector.record_failure(SICK, f"Text {number}.")
    assert reason(detector, others=0) is not None
    detector.ejected(SICK, NOW, others_serving=0)
    assert reason(detector, others=0) is None
    after_failures(9, detector)
    assert reason(detector, others=0) is None
    assert reason(detector, now=NOW + ALONE_PAUSE_SECONDS, others=0) is not None


def test_one_text_that_is_sent_again_and_again_restarts_nothing() -> None:
    detector = OutlierDetector(3)
    for _ in range(10 * MAX_BARREN_TEXTS):
        detector.record_failure(SICK, "The same text.")
    assert reason(detector) is None
    assert reason(detector, others=0) is None


def test_an_answer_that_no_request_asked_for_is_the_workers_fault() -> None:
    detector = OutlierDetector(3)
    for _ in range(3):
        detector.record_violation(SICK, NOW)
    assert reason(detector) is not None


def test_a_new_process_begins_without_a_record() -> None:
    detector = after_failures(9)
    detector.forget_predecessors("0:12")
    assert reason(detector) is None
    detector = after_failures(9)
    detector.forget_predecessors("10:12")
    assert reason(detector) is not None


@pytest.mark.parametrize("others", [0, 1])
def test_it_can_be_turned_off(others: int) -> None:
    assert reason(after_failures(99, OutlierDetector(0)), others=others) is None
