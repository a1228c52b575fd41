"""What attention in tiles is made with, over all frames of an utterance or in a step of decoding."""

from __future__ import annotations

import math

import numpy as np

from worker.engines.chatterbox.kernels.jit import compiled
from worker.engines.chatterbox.kernels.simd.gemm import TILE_COLUMNS

WIDTH = TILE_COLUMNS
"""Of a head in float32, in all of the family."""
FACTOR = np.float32(WIDTH**-0.5 * math.log2(math.e))
"""Scores times this are exponents of two."""
NEVER = np.float32(-3e38)
"""The score of what must not be heard."""


@compiled
def whole_tiles(time):  # type: ignore[no-untyped-def]
    """Positions with those that fill the last tile."""
    return (time + TILE_COLUMNS - 1) // TILE_COLUMNS * TILE_COLUMNS
