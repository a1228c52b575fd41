"""One channel of many: the mix in which a reference clip is measured, and from which a voice is cloned."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import av
import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
"""Samples of shape (channels, samples), in [-1, 1] unless the recording goes beyond."""

Mono = NDArray[np.float32]
"""Samples of shape (samples,)."""

MAX_CHANNELS = 8
"""Arrangements of more channels have no standard."""


class Downmix:
    """Mixes the frames of one recording, of at most MAX_CHANNELS channels, to one channel, at their sample rate.

    Two channels become their mean, and those of surround sound keep their proportions to these two (ITU-R BS.775): the
    centre counts 3 dB more than left or right, the rear channels 3 dB less, the low-frequency effects nothing.
    """

    def __init__(self) -> None:
        self._to_planes = av.AudioResampler(format="fltp")
        self._to_mono = av.AudioResampler(format="fltp", layout="mono")

    def mix(self, frame: av.AudioFrame) -> Iterator[tuple[Planes, Mono]]:
        """The frame's channels, and their mix. Raises av.FFmpegError."""
        for converted in self._to_planes.resample(frame):
            planes = converted.to_ndarray().astype(np.float32, copy=False)
            if len(planes) == 1:
                yield planes, planes[0]
            else:
                mixed = np.concatenate([mono.to_ndarray()[0] for mono in self._to_mono.resample(converted)])
                yield planes, (mixed / np.float32(sqrt(2))).astype(np.float32, copy=False)
