"""Quantization to int8: weights with a scale for each output, activations with a scale for each row or window of rows.

A number is its int8 times the scale. Activations are stored as unsigned bytes around ZERO_POINT, because a processor
with VNNI multiplies unsigned with signed bytes; the product is corrected for it, see `packed_gemm`. Other processors
multiply int16: for them the same numbers are stored in 16 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayQuantized, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.simd.gemm import INT8_GROUP
from worker.engines.chatterbox.kernels.simd.rows import abs_max, quantize_int8, quantize_int16

ZERO_POINT = np.int32(128)
"""The unsigned byte that stands for 0."""
ACTIVATION_BYTES = 4 // INT8_GROUP
ACTIVATION_DTYPE: type[np.integer[Any]]
ACTIVATION_DTYPE, ACTIVATION_TENSOR_DTYPE = (
    (np.uint8, torch.uint8) if ACTIVATION_BYTES == 1 else (np.int16, torch.int16)
)
"""A quantized activation, as the processor multiplies it: of NumPy's and of PyTorch's."""
INT8_MAX = np.float32(127)
"""The largest magnitude of a row is scaled to this."""
MIN_ABS_MAX = np.float32(1e-30)
"""Smaller largest magnitudes are raised to this one: a row of zeros must not divide by zero."""


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 (outputs, inputs) to int8 of the same shape, and the scale of each output, float32 (outputs,)."""
    scales = (weight.abs().amax(1) / float(INT8_MAX)).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scales[:, None]).round().to(torch.int8), scales


def quantize_windows(
    states: Tensor, row_maxima: Tensor, first: int, dilation: int, out: Tensor, scales: Tensor
) -> None:
    """Quantize a convolution's windows of rows: numbers around ZERO_POINT into `out`, a scale for each into `scales`.

    Window n of `out`, (windows, taps * width) of ACTIVATION_TENSOR_DTYPE, has the rows first + n, first + n + dilation,
    … of `states`, float32 (time, width), whose largest magnitudes are `row_maxima`; rows before the first and after the
    last are zeros.
    """
    arrays = states.numpy(), row_maxima.numpy(), first, dilation, out.numpy(), scales.numpy()
    parallel_for(_quantize_windows, len(out), *arrays)


def quantize_rows(states: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize float32 (rows, width): the same of ACTIVATION_TENSOR_DTYPE, and the scale of each row."""
    out, scales = torch.empty(states.shape, dtype=ACTIVATION_TENSOR_DTYPE), torch.empty(len(states))
    parallel_for(quantize_rows_of, len(states), states.contiguous().numpy(), out.numpy(), scales.numpy())
    return out, scales


def row_abs_max(states: Tensor) -> Tensor:
    """The largest magnitude of each row: float32 (rows, width) to (rows,)."""
    out = torch.empty(len(states))
    parallel_for(_row_abs_max, len(states), states.numpy(), out.numpy())
    return out


@jit
def quantize_row(row: int, width: int, out: int) -> np.float32:
    """Quantize `width` float32 at the address `row` to int8 at the address `out`; returns their scale."""
    largest: np.float32 = max(abs_max(row, width), MIN_ABS_MAX)
    quantize_int8(row, width, INT8_MAX / largest, np.int32(0), out)
    return largest / INT8_MAX


@jit
def quantize_activations(row: int, width: int, out: int) -> np.float32:
    """Quantize `width` float32 at the address `row` to activations at the address `out`; returns their scale."""
    largest: np.float32 = max(abs_max(row, width), MIN_ABS_MAX)
    _store_activations(row, width, INT8_MAX / largest, out)
    return largest / INT8_MAX


@jit
def _store_activations(row: int, width: int, inverse_scale: np.float32, out: int) -> None:
    if ACTIVATION_BYTES == 1:
        quantize_int8(row, width, inverse_scale, ZERO_POINT, out)
    else:
        quantize_int16(row, width, inverse_scale, ZERO_POINT, out)


@jit
def quantize_rows_of(begin: int, end: int, states: ArrayF32, out: ArrayQuantized, scales: ArrayF32) -> None:
    """Quantize the rows `begin` to `end`: see `quantize_rows`."""
    width = states.shape[1]
    for row in range(begin, end):
        place = out.ctypes.data + row * width * ACTIVATION_BYTES
        scales[row] = quantize_activations(states.ctypes.data + row * width * 4, width, place)


@jit
def _row_abs_max(begin: int, end: int, states: ArrayF32, out: ArrayF32) -> None:
    width = states.shape[1]
    for row in range(begin, end):
        out[row] = abs_max(states.ctypes.data + row * width * 4, width)


@jit
def _quantize_windows(
    begin: int,
    end: int,
    states: ArrayF32,
    row_maxima: ArrayF32,
    first: int,
    dilation: int,
    out: ArrayQuantized,
    scales: ArrayF32,
) -> None:
    time, width = states.shape
    taps = out.shape[1] // width
    for window in range(begin, end):
        largest = MIN_ABS_MAX
        for tap in range(taps):
            at = first + window + tap * dilation
            if 0 <= at < time:
                largest = max(largest, row_maxima[at])
        for tap in range(taps):
            at = first + window + tap * dilation
            if 0 <= at < time:
                place = out.ctypes.data + (window * taps + tap) * width * ACTIVATION_BYTES
                _store_activations(states.ctypes.data + at * width * 4, width, INT8_MAX / largest, place)
            else:
                out[window, tap * width : (tap + 1) * width] = ZERO_POINT
        scales[window] = largest / INT8_MAX
