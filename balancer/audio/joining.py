"""Joins the PCM of a text's segments: their own silence gives way to the pauses between and around them.

PCM is signed 16-bit little-endian mono.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from balancer.audio.buffers import AudioBuffer
from worker.contract import SAMPLE_BYTES

SILENCE = 104
"""The largest sample that counts as silence: -50 dB of full scale."""
MARGIN_SECONDS = 0.02
"""What is kept of the silence: the faint beginning and end of a sound."""


def join(parts: Sequence[AudioBuffer], pauses: Sequence[float], sample_rate: int, output: IO[bytes]) -> None:
    """Write all parts, with the pauses in seconds before, between and behind them. Blocks. Raises OSError, ValueError.

    Where no pause is before the first part, its beginning stays as it is, and so does the end of the last one.
    """
    if len(pauses) != len(parts) + 1:
        raise ValueError(f"{len(parts)} parts have {len(parts) + 1} pauses around them, not {len(pauses)}")
    silences = [bytes(round(pause * sample_rate) * SAMPLE_BYTES) for pause in pauses]
    output.write(silences[0])
    for number, part in enumerate(parts):
        samples = np.frombuffer(bytes(part), "<i2")
        start, end = _loud(samples, margin=round(MARGIN_SECONDS * sample_rate))
        if number == 0 and not silences[0]:
            start = 0
        if number == len(parts) - 1 and not silences[-1]:
            end = len(samples)
        output.write(samples[start:end].tobytes())
        output.write(silences[number + 1])


def _loud(samples: NDArray[np.int16], *, margin: int) -> tuple[int, int]:
    """The first and the last-plus-one sample that is no silence, with the margin; (0, 0) where all is silence."""
    loud = np.flatnonzero((samples > SILENCE) | (samples < -SILENCE))
    if not len(loud):
        return 0, 0
    return max(0, int(loud[0]) - margin), min(len(samples), int(loud[-1]) + 1 + margin)
