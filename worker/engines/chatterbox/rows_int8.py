"""Rows of activations as bytes with a scale for each row, before a product of whole numbers and after it."""

from __future__ import annotations

import torch
from torch import Tensor

from worker.engines.chatterbox.compiled import compiled
from worker.engines.chatterbox.vector_code import quantized_row

MIDDLE = 128
"""Unsigned bytes are counted from there."""


def quantized(states: Tensor) -> tuple[Tensor, Tensor]:
    """Contiguous float32 (rows, width) as unsigned bytes around MIDDLE, and what one stands for, float32 (rows,).

    A width is a multiple of 16.
    """
    rows, width = states.shape
    out, scales = torch.empty(rows, width, dtype=torch.uint8), torch.empty(rows)
    _quantize(states.numpy(), out.numpy(), scales.numpy())
    return out, scales


def scaled(products: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`products`, float32 (rows, width), times the scales of their rowsand plus the bias, in their place."""
    if bias is None:
        _scale(products.numpy(), scales.numpy())
    else:
        _scale_add(products.numpy(), scales.numpy(), bias.numpy())
    return products


@compiled
def _quantize(states, out, scales):  # type: ignore[no-untyped-def]
    rows, width = states.shape
    for row in range(rows):
        scales[row] = quantized_row(states.ctypes.data + row * width * 4, width, MIDDLE, out.ctypes.data + row * width)


@compiled
def _scale(products, scales):  # type: ignore[no-untyped-def]
    for row in range(len(products)):
        for number in range(products.shape[1]):
            products[row, number] *= scales[row]


@compiled
def _scale_add(products, scales, bias):  # type: ignore[no-untyped-def]
    for row in range(len(products)):
        for number in range(products.shape[1]):
            products[row, number] = products[row, number] * scales[row] + bias[number]
