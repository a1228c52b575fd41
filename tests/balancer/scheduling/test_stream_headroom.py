"""Streams take of the host's audio what they play, until all of theirs is made."""

from __future__ import annotations

import pytest

from balancer.scheduling.stream_headroom import MIN_RETRY_SECONDS, StreamDemand, StreamHeadroom


def test_what_is_left_is_the_capacity_without_what_running_streams_play() -> None:
    headroom = StreamHeadroom(lambda: 2.5, best_effort=False)
    first, fast = StreamDemand(1.0, ends_at=20.0), StreamDemand(1.5, ends_at=12.0)
    headroom.add(first)
    assert headroom.left == 1.5
    assert [headroom.admits(speed) for speed in (0.5, 1.5, 2.0)] == [True, True, False]
    headroom.add(fast)
    assert (headroom.left, headroom.admits(0.25)) == (0.0, False)
    headroom.remove(first)
    headroom.remove(first)
    assert headroom.left == 1.0


def test_a_refused_stream_may_come_again_when_a_running_one_should_have_ended() -> None:
    headroom = StreamHeadroom(lambda: 1.0, best_effort=False)
    assert headroom.refusal(10.0).retry_after == MIN_RETRY_SECONDS
    for ends_at in (20.0, 15.0):
        headroom.add(StreamDemand(1.0, ends_at))
    assert headroom.refusal(10.0).retry_after == 5.0
    assert headroom.refusal(14.9).retry_after == MIN_RETRY_SECONDS
    assert "make 0 s of audio" in str(headroom.refusal(10.0))


@pytest.mark.parametrize(("capacity", "best_effort"), [(0.5, True), (0.0, False)])
def test_every_stream_is_admitted_where_gaps_are_accepted_or_no_worker_is_known(
    capacity: float, *, best_effort: bool
) -> None:
    headroom = StreamHeadroom(lambda: capacity, best_effort=best_effort)
    headroom.add(StreamDemand(1.0, ends_at=1.0))
    assert headroom.admits(4.0)
    assert headroom.left < 0
