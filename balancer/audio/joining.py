"""Joins the PCM of a text's segments: their own silence at the joins gives way to the pauses between them.

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
    """Write all parts, with a pause in seconds behind each but the last. Blocks. Raises OSError, ValueError.

    The beginning of the first part and the end of the last one stay as they are.
    """
    if len(pauses) != len(parts) - 1:
        raise ValueError(f"{len(parts)} parts have {len(parts) - 1} pauses between them, not {len(pauses)}")
    for number, part in enumerate(parts):
        samples = np.frombuffer(bytes(part), "<i2")
        start, end = _loud(samples, margin=round(MARGIN_SECONDS * sample_rate))
        last = number == len(parts) - 1
        output.write(samples[0 if number == 0 else start : len(samples) if last else end].tobytes())
        if not last:
            output.write(bytes(round(pauses[number] * sample_rate) * SAMPLE_BYTES))


def _loud(samples: NDArray[np.int16], *, margin: int) -> tuple[int, int]:
    """The first and the last-plus-one sample that is no silence, with the margin; (0, 0) where all is silence."""
    loud = np.flatnonzero((samples > SILENCE) | (samples < -SILENCE))
    if not len(loud):
        return 0, 0
    return max(0, int(loud[0]) - margin), min(len(samples), int(loud[-1]) + 1 + margin)
