"""When a stream may begin so that it plays without a gap."""

from __future__ import annotations

import pytest

from balancer.scheduling.playout_delay import RESERVE, SegmentProgress, StreamPace, earliest_start

NOW = 100.0


def segment(seconds: float, *, begun: float | None = NOW, made: float = 0.0, finished: bool = False) -> SegmentProgress:
    return SegmentProgress(seconds, begun, made, finished)


def delay(*segments: SegmentProgress, slots: int = 8, speed: float, playback_speed: float = 1.0) -> float:
    return earliest_start(segments, StreamPace(slots, speed), NOW, playback_speed) - NOW


def test_a_host_that_is_faster_than_the_listener_begins_at_once() -> None:
    assert delay(segment(6.0, made=6.0), segment(6.0), segment(6.0), speed=3.0) == 0


def test_what_is_finished_is_not_waited_for() -> None:
    assert delay(segment(6.0, finished=True), segment(60.0, finished=True), speed=0.1) == 0


def test_the_rest_of_a_segment_is_to_be_made_while_its_first_piece_is_played() -> None:
    assert delay(segment(6.0, made=1.0), speed=0.5) == pytest.approx(RESERVE * 12 - 1)
    assert delay(segment(6.0, begun=NOW - 10, made=1.0), speed=0.5) == pytest.approx(RESERVE * 2 - 1)


def test_one_that_takes_longer_than_expected_is_taken_to_be_finished_soon() -> None:
    assert delay(segment(6.0, begun=NOW - 30, made=1.0), speed=0.5) == 0


def test_each_segment_is_to_be_made_while_those_before_it_are_played() -> None:
    """Both are made at once, in 12 s: the first decides, and a long one behind it if it is longer."""
    assert delay(segment(6.0), segment(6.0), speed=0.5) == pytest.approx(RESERVE * 12)
    assert delay(segment(6.0), segment(18.0), speed=0.5) == pytest.approx(RESERVE * 36 - 6)


def test_segments_wait_for_a_slot() -> None:
    waiting = [segment(6.0), segment(6.0, begun=None), segment(6.0, begun=None)]
    assert delay(*waiting, slots=1, speed=0.5) == pytest.approx(RESERVE * 36 - 12)
    assert delay(*waiting, slots=3, speed=0.5) == pytest.approx(RESERVE * 12)


def test_one_that_is_queued_takes_its_time_from_when_a_slot_is_free() -> None:
    segments = [segment(6.0, begun=NOW - 6), segment(6.0, begun=NOW - 6)]
    assert delay(*segments, slots=1, speed=0.5) == pytest.approx(RESERVE * (6 + 12) - 6)


def test_one_that_is_queued_behind_a_late_one_has_not_begun() -> None:
    segments = [segment(6.0, begun=NOW - 30), segment(6.0, begun=NOW - 30)]
    assert delay(*segments, slots=1, speed=0.5) == pytest.approx(RESERVE * 12 - 6)


def test_audio_that_is_played_faster_has_to_be_made_sooner() -> None:
    segments = [segment(6.0, finished=True), segment(6.0)]
    assert delay(*segments, speed=0.5) == pytest.approx(RESERVE * 12 - 6)
    assert delay(*segments, speed=0.5, playback_speed=2.0) == pytest.approx(RESERVE * 12 - 3)
