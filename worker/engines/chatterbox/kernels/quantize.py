"""Rows of activations as bytes with a scale for each row, before a product of whole numbers and after it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import compiled, shared
from worker.engines.chatterbox.kernels.simd.rows import largest, row_bytes

MIDDLE = np.int32(128)
"""Unsigned bytes are counted from there."""


MOST = np.float32(127)
"""The largest number of a row becomes so much."""
LEAST_NUMBER = np.float32(1e-30)
"""Keeps a row of zeros from a division by zero."""


def quantized_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 (outputs, inputs) as signed bytes, and what one stands for in each output, float32 (outputs,)."""
    scales = (weight.abs().amax(1) / float(MOST)).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scales[:, None]).round().to(torch.int8), scales


def quantized_windows(states: Tensor, sizes: Tensor, first: int, dilation: int, out: Tensor, scales: Tensor) -> None:
    """Windows of rows side by side, as bytes with a scale for each window, into `out` and `scales`.

    Window n of the answer, (windows, taps * width), has the rows first + n, first + n + dilation, … of `states`,
    float32 (time, width), whose largest numbers are `sizes`; rows before the first and after the last are zeros.
    """
    shared(_quantize_windows, len(out), states.numpy(), sizes.numpy(), first, dilation, out.numpy(), scales.numpy())


def sizes(states: Tensor) -> Tensor:
    """The largest number of each row, without its sign: float32 (rows, width) to (rows,)."""
    out = torch.empty(len(states))
    shared(_sizes, len(states), states.numpy(), out.numpy())
    return out


@compiled
def quantized_row(row, width, middle, out):  # type: ignore[no-untyped-def]
    """A row at an address as bytes at another; what one of them stands for."""
    size = max(largest(row, width), LEAST_NUMBER)
    row_bytes(row, width, MOST / size, middle, out)
    return size / MOST


@compiled
def _sizes(first, end, states, out):  # type: ignore[no-untyped-def]
    width = states.shape[1]
    for row in range(first, end):
        out[row] = largest(states.ctypes.data + row * width * 4, width)


@compiled
def _quantize_windows(begin, end, states, sizes, first, dilation, out, scales):  # type: ignore[no-untyped-def]
    time, width = states.shape
    taps = out.shape[1] // width
    for window in range(begin, end):
        size = LEAST_NUMBER
        for tap in range(taps):
            at = first + window + tap * dilation
            if 0 <= at < time:
                size = max(size, sizes[at])
        for tap in range(taps):
            at = first + window + tap * dilation
            if 0 <= at < time:
                place = out.ctypes.data + (window * taps + tap) * width
                row_bytes(states.ctypes.data + at * width * 4, width, MOST / size, MIDDLE, place)
            else:
                out[window, tap * width : (tap + 1) * width] = MIDDLE
        scales[window] = size / MOST
