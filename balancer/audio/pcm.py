"""PCM as the engines make it: signed 16-bit little-endian mono."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from worker.contract import SAMPLE_BYTES


def check(size: int, sample_rate: int) -> None:
    """Raises ValueError if PCM of `size` bytes ends within a sample, or the rate is not positive."""
    if size % SAMPLE_BYTES:
        raise ValueError(f"PCM ends within a sample: {size} bytes")
    if sample_rate <= 0:
        raise ValueError(f"sample rate must be positive, not {sample_rate}")


def duration(size: int, sample_rate: int) -> float:
    """Length of `size` bytes of PCM in seconds. Raises ValueError as `check`."""
    check(size, sample_rate)
    return size / SAMPLE_BYTES / sample_rate


def silence(samples: int) -> bytes:
    """PCM of so many samples."""
    return bytes(samples * SAMPLE_BYTES)


class Frames:
    """Makes ffmpeg's frames of pieces of PCM, which follow each other."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._start = 0

    def of(self, pcm: bytes) -> Iterator[av.AudioFrame]:
        """The frame of a piece; none of an empty one."""
        samples = np.frombuffer(pcm, np.int16)
        if not len(samples):
            return
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.time_base = Fraction(1, self._sample_rate)
        frame.pts = self._start
        self._start += len(samples)
        yield frame
