"""Rows of activations as bytes with a scale for each row, before a product of whole numbers and after it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.compiled import compiled, shared
from worker.engines.chatterbox.vectors.activations import gelu_row
from worker.engines.chatterbox.vectors.rows import largest, row_bytes

MIDDLE = np.int32(128)
"""Unsigned bytes are counted from there."""


MOST = np.float32(127)
"""The largest number of a row becomes so much."""
LEAST_NUMBER = np.float32(1e-30)
"""Keeps a row of zeros from a division by zero."""


def quantized(states: Tensor) -> tuple[Tensor, Tensor]:
    """Contiguous float32 (rows, width) as unsigned bytes around MIDDLE, and what one stands for, float32 (rows,).

    A width is a multiple of 16.
    """
    out, scales = torch.empty(states.shape, dtype=torch.uint8), torch.empty(len(states))
    shared(_quantize, len(states), states.numpy(), out.numpy(), scales.numpy())
    return out, scales


def quantized_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 (outputs, inputs) as signed bytes, and what one stands for in each output, float32 (outputs,)."""
    scales = (weight.abs().amax(1) / float(MOST)).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scales[:, None]).round().to(torch.int8), scales


def quantized_windows(
    states: Tensor, sizes: Tensor, first: int, taps: int, dilation: int, out: Tensor, scales: Tensor
) -> None:
    """Windows of rows side by side, as bytes with a scale for each window, into `out` and `scales`.

    Window n of the answer, (windows, taps * width), has the rows first + n, first + n + dilation, … of `states`,
    float32 (time, width), whose largest numbers are `sizes`; those that are beyond the last row are left as they were.
    """
    arrays = states.numpy(), sizes.numpy(), first, taps, dilation, out.numpy(), scales.numpy()
    shared(_quantize_windows, min(len(out), len(states) - (taps - 1) * dilation - first), *arrays)


def sizes(states: Tensor) -> Tensor:
    """The largest number of each row, without its sign: float32 (rows, width) to (rows,)."""
    out = torch.empty(len(states))
    shared(_sizes, len(states), states.numpy(), out.numpy())
    return out


def scaled(products: Tensor, scales: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """`products`, float32 (rows, width), times the scales of their rows and plus the bias, into `out` of that shape."""
    if bias is None:
        shared(_scale, len(out), products.numpy(), scales.numpy(), out.numpy())
    else:
        shared(_scale_add, len(out), products.numpy(), scales.numpy(), bias.numpy(), out.numpy())


def scaled_gelu(products: Tensor, scales: Tensor, bias: Tensor | None) -> None:
    """The same in their place, and each number x times the share of a normal distribution that is below x (GELU)."""
    shift = torch.zeros(products.shape[1]) if bias is None else bias
    shared(_scale_gelu, len(products), products.numpy(), scales.numpy(), shift.numpy())


@compiled
def quantized_row(row, width, middle, out):  # type: ignore[no-untyped-def]
    """A row at an address as bytes at another; what one of them stands for."""
    size = max(largest(row, width), LEAST_NUMBER)
    row_bytes(row, width, MOST / size, middle, out)
    return size / MOST


@compiled
def _quantize(first, end, states, out, scales):  # type: ignore[no-untyped-def]
    width = states.shape[1]
    for row in range(first, end):
        scales[row] = quantized_row(states.ctypes.data + row * width * 4, width, MIDDLE, out.ctypes.data + row * width)


@compiled
def _sizes(first, end, states, out):  # type: ignore[no-untyped-def]
    width = states.shape[1]
    for row in range(first, end):
        out[row] = largest(states.ctypes.data + row * width * 4, width)


@compiled
def _quantize_windows(begin, end, states, sizes, first, taps, dilation, out, scales):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    width = states.shape[1]
    for window in range(begin, end):
        size = LEAST_NUMBER
        for tap in range(taps):
            size = max(size, sizes[first + window + tap * dilation])
        for tap in range(taps):
            row = states.ctypes.data + (first + window + tap * dilation) * width * 4
            place = out.ctypes.data + (window * taps + tap) * width
            row_bytes(row, width, MOST / size, MIDDLE, place)
        scales[window] = size / MOST


@compiled
def _scale(first, end, products, scales, out):  # type: ignore[no-untyped-def]
    for row in range(first, end):
        for number in range(out.shape[1]):
            out[row, number] = products[row, number] * scales[row]


@compiled
def _scale_add(first, end, products, scales, bias, out):  # type: ignore[no-untyped-def]
    for row in range(first, end):
        for number in range(out.shape[1]):
            out[row, number] = products[row, number] * scales[row] + bias[number]


@compiled
def _scale_gelu(first, end, products, scales, bias):  # type: ignore[no-untyped-def]
    width = products.shape[1]
    for row in range(first, end):
        for number in range(width):
            products[row, number] = products[row, number] * scales[row] + bias[number]
        gelu_row(products.ctypes.data + row * width * 4, width)
