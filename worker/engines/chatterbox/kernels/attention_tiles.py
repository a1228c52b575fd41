"""Constants of the float32 attention kernels, and the padding of positions that all attention kernels use."""

from __future__ import annotations

import math

import numpy as np

from worker.engines.chatterbox.kernels.jit import jit
from worker.engines.chatterbox.kernels.simd.gemm import NR

HEAD_DIM = NR
"""Width of a head in the float32 kernels: 64, as in every model of the Chatterbox family."""
SOFTMAX_FACTOR = np.float32(HEAD_DIM**-0.5 * math.log2(math.e))
"""exp(score / sqrt(HEAD_DIM)) is 2**(score * SOFTMAX_FACTOR)."""
MASKED_SCORE = np.float32(-3e38)
"""The score of a position that must get no weight."""


@jit
def padded_length(time: int) -> int:
    """The number of positions, rounded up to a multiple of NR."""
    return (time + NR - 1) // NR * NR
