"""The mix of several channels to one."""

from __future__ import annotations

import av
import numpy as np
import pytest

from voices.downmix import Downmix

HALF_POWER = 0.5**0.5


@pytest.mark.parametrize("sample_format", ["fltp", "s16"])
@pytest.mark.parametrize(
    ("layout", "gains"),
    [
        ("mono", [1]),
        ("stereo", [0.5, 0.5]),
        ("3.0", [0.5, 0.5, HALF_POWER]),
        ("quad", [0.5, 0.5, HALF_POWER / 2, HALF_POWER / 2]),
        ("5.1", [0.5, 0.5, HALF_POWER, 0, HALF_POWER / 2, HALF_POWER / 2]),
    ],
)
def test_the_gain_of_each_channel(layout: str, gains: list[float], sample_format: str) -> None:
    for channel, gain in enumerate(gains):
        samples = np.zeros((len(gains), 1000), np.float32)
        samples[channel] = 0.5
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = 24_000
        (frame,) = av.AudioResampler(format=sample_format).resample(frame)
        ((planes, mono),) = Downmix().mix(frame)
        assert planes == pytest.approx(samples, abs=1e-4)
        assert planes.dtype == mono.dtype == np.dtype(np.float32)
        assert mono == pytest.approx(np.full(1000, 0.5 * gain), abs=1e-4)
