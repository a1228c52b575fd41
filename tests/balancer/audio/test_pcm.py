"""What PCM is, and how long."""

from __future__ import annotations

import numpy as np
import pytest

from balancer.audio.pcm import Frames, duration, silence


def test_duration_is_in_seconds() -> None:
    assert duration(0, 24_000) == 0
    assert duration(72_000, 24_000) == 1.5
    assert duration(132_300, 44_100) == 1.5


@pytest.mark.parametrize(("size", "rate", "message"), [(3, 24_000, "sample"), (2, 0, "rate"), (2, -1, "rate")])
def test_what_is_no_pcm_is_refused(size: int, rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        duration(size, rate)


def test_frames_follow_each_other() -> None:
    frames = Frames(24_000)
    made = [frame for piece in (silence(10), b"", silence(5)) for frame in frames.of(piece)]
    assert [(frame.pts, frame.samples) for frame in made] == [(0, 10), (10, 5)]
    assert not np.any(made[0].to_ndarray())
