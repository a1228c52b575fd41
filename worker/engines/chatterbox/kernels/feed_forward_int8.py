"""A transformer's feed-forward in int8: layer norm, two products with an activation between them, and the residual.

A block of rows goes through all of it before the next: the activations between the products, four times as wide as the
states, then stay in the core's second-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import ArrayF32, jit
from worker.engines.chatterbox.kernels.layer_norm import NormArrays, norm_arrays, quantize_normed_rows
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.packed_gemm import PackedInt8, PackedLinearInt8, fits_tiles, multiply_int8
from worker.engines.chatterbox.kernels.quantize import ACTIVATION_DTYPE, quantize_rows_of
from worker.engines.chatterbox.kernels.simd.targets import TARGET

BLOCK_ROWS = max(1, 128 // TARGET.many_rows) * TARGET.many_rows
"""Rows of a block. So many that reading the weights takes little of its time, so few that 1,024 float32 of each row are
512 KiB, half of a second-level cache of 1 MiB."""


class FeedForwardInt8:
    """The sum of states and down(activation(up(norm(states)))), with int8 weights and activations.

    `norm` is a `torch.nn.LayerNorm`, `up` and `down` are linear layers with weight and bias; the hidden width is a
    multiple of 16, as the states' is.
    """

    def __init__(self, norm: Any, up: Any, down: Any, activation: str) -> None:
        self._norm = norm_arrays(norm)
        self._hidden, inputs = up.weight.shape
        self._up = PackedLinearInt8(up.weight, up.bias, activation).weight
        self._down = PackedLinearInt8(down.weight, down.bias).weight
        self._tiles = fits_tiles(inputs) and fits_tiles(self._hidden)

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, width) to the same shape."""
        out = torch.empty(states.shape)
        blocks = (len(states) + BLOCK_ROWS - 1) // BLOCK_ROWS
        arrays = states.contiguous().numpy(), self._norm, self._up, self._down, self._hidden, out.numpy()
        parallel_for(_feed_forward, blocks, self._tiles, *arrays)
        return out


@jit
def _feed_forward(  # noqa: PLR0917
    begin: int,
    end: int,
    tiles: bool,
    states: ArrayF32,
    norm: NormArrays,
    up: PackedInt8,
    down: PackedInt8,
    hidden: int,
    out: ArrayF32,
) -> None:
    """The blocks `begin` to `end` of BLOCK_ROWS rows."""
    width = states.shape[1]
    quantized = np.empty((BLOCK_ROWS, width), ACTIVATION_DTYPE)
    quantized_hidden = np.empty((BLOCK_ROWS, hidden), ACTIVATION_DTYPE)
    activations, scales = np.empty((BLOCK_ROWS, hidden), np.float32), np.empty(BLOCK_ROWS, np.float32)
    for first in range(begin * BLOCK_ROWS, min(end * BLOCK_ROWS, len(states)), BLOCK_ROWS):
        count = min(BLOCK_ROWS, len(states) - first)
        rows = slice(first, first + count)
        quantize_normed_rows(states[rows], norm, quantized[:count], scales[:count])
        multiply_int8(tiles, quantized[:count], scales[:count], up, activations[:count])
        quantize_rows_of(0, count, activations[:count], quantized_hidden[:count], scales[:count])
        multiply_int8(tiles, quantized_hidden[:count], scales[:count], down, out[rows])
        for row in range(first, first + count):
            for lane in range(width):
                out[row, lane] += states[row, lane]
