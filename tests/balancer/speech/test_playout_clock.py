"""A listener's clock knows when there is nothing to play."""

from __future__ import annotations

import pytest

from balancer.speech.playout_clock import PlayoutClock


def test_audio_that_comes_in_time_leaves_no_gap() -> None:
    clock = PlayoutClock()
    assert clock.ahead(5.0) == 0.0
    assert [clock.sent(2.0, 10.0), clock.sent(3.0, 11.5), clock.sent(1.0, 15.0)] == [0.0, 0.0, 0.0]
    assert clock.ahead(15.5) == 0.5
    assert (clock.gaps, clock.gap_seconds) == (0, 0.0)


def test_a_gap_is_as_long_as_the_listener_waits() -> None:
    clock = PlayoutClock()
    clock.sent(2.0, 10.0)
    assert clock.sent(2.0, 12.5) == 0.5
    assert clock.ahead(13.0) == pytest.approx(1.5)
    assert clock.sent(2.0, 15.0) == pytest.approx(0.5)
    assert clock.gaps == 2
    assert clock.gap_seconds == pytest.approx(1.0)


def test_a_clock_may_begin_at_zero() -> None:
    clock = PlayoutClock()
    clock.sent(1.0, 0.0)
    assert clock.sent(1.0, 1.5) == 0.5
