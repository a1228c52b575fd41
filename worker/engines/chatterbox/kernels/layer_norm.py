"""Layer norm of rows and their quantization in one pass: the input of an int8 product behind a layer norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayQuantized, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.quantize import (
    ACTIVATION_BYTES,
    ACTIVATION_TENSOR_DTYPE,
    quantize_activations,
)

NormArrays = tuple[ArrayF32, ArrayF32, float]
"""Weight and bias of a layer norm, (width,) each, and what is added to the variance."""


def norm_arrays(norm: Any) -> NormArrays:
    """The arrays of a `torch.nn.LayerNorm` over the last dimension."""
    return norm.weight.detach().numpy(), norm.bias.detach().numpy(), float(norm.eps)


def quantize_normed(states: Tensor, norm: NormArrays) -> tuple[Tensor, Tensor]:
    """Normalize and quantize float32 (rows, width): numbers of ACTIVATION_TENSOR_DTYPE, and the scale of each row."""
    out, scales = torch.empty(states.shape, dtype=ACTIVATION_TENSOR_DTYPE), torch.empty(len(states))
    parallel_for(_quantize_normed, len(states), states.contiguous().numpy(), norm, out.numpy(), scales.numpy())
    return out, scales


@jit
def _quantize_normed(
    begin: int, end: int, states: ArrayF32, norm: NormArrays, out: ArrayQuantized, scales: ArrayF32
) -> None:
    quantize_normed_rows(states[begin:end], norm, out[begin:end], scales[begin:end])


@jit
def quantize_normed_rows(states: ArrayF32, norm: NormArrays, out: ArrayQuantized, scales: ArrayF32) -> None:
    """Normalize and quantize all rows, (rows, width): see `quantize_normed`."""
    weight, bias, epsilon = norm
    width = states.shape[1]
    normed = np.empty(width, np.float32)
    for row in range(len(states)):
        total, squares = np.float32(0), np.float32(0)
        for lane in range(width):
            total += states[row, lane]
        mean = total / np.float32(width)
        for lane in range(width):
            difference = states[row, lane] - mean
            squares += difference * difference
        inverse = np.float32(1 / math.sqrt(squares / np.float32(width) + np.float32(epsilon)))
        for lane in range(width):
            normed[lane] = (states[row, lane] - mean) * inverse * weight[lane] + bias[lane]
        scales[row] = quantize_activations(normed.ctypes.data, width, out.ctypes.data + row * width * ACTIVATION_BYTES)
