"""Few rows times large weights, which are read from end to end: what a step of decoding is made of.

A library's product of a few rows reads weights at two thirds of the speed of memory, see docs/engine.md. Here they lie
as a processor reads them: in strips of LANES outputs, input by input; and a tile has as many rows as there are, so that
computing takes no longer than reading does. A number's sum is taken input by input whatever the tile, so that what
comes of a row does not depend on the others. For processors with AVX-512, bytes for those with VNNI.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import aligned, compiled, shared
from worker.engines.chatterbox.kernels.quantize import MIDDLE, quantized_row, quantized_weight
from worker.engines.chatterbox.kernels.simd.activations import gelu_row, gelu_tanh_row
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import (
    TILE_COLUMNS,
    TILE_ROWS,
    strips_of_bytes_6,
    strips_of_bytes_12,
    strips_of_bytes_24,
    strips_of_floats_6,
    strips_of_floats_12,
    strips_of_floats_24,
)
from worker.engines.chatterbox.kernels.simd.rows import added_row, scaled_sums

TILES = (6, 12, 24)
"""Rows of a tile."""
_BYTES_A_LANE = 4
ACTIVATIONS = ("none", "gelu", "gelu-tanh")
"""What outputs may go through."""
_GELU, _GELU_TANH = 1, 2


class FloatStrips:
    """A float32 weight (outputs, inputs) and a bias (outputs,), or none, with one of ACTIVATIONS after them."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        self._weight = _strips(weight, 1)[..., 0].contiguous().numpy()
        self._outputs, self._activation = len(weight), ACTIVATIONS.index(activation)
        self._bias = _of_outputs(torch.zeros(len(weight)) if bias is None else bias)

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs) to (rows, outputs)."""
        out = torch.empty(len(states), self._outputs)
        arrays = states.contiguous().numpy(), self._weight, self._bias, self._activation, out.numpy()
        shared(_product_of_floats, len(self._bias) // TILE_COLUMNS, *arrays)
        return out


class ByteStrips:
    """The same with weights as bytes, a scale for each output, and rows as bytes with a scale for each."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        whole, scales = quantized_weight(weight)
        strips = _strips(whole, _BYTES_A_LANE).contiguous().numpy().view(np.int32)[..., 0]
        self._outputs, self._parts = len(weight), len(strips) * LANES // TILE_COLUMNS
        # Rows are counted from their middle.
        less = whole.sum(1, dtype=torch.int32) * int(MIDDLE)
        bias = torch.zeros(len(weight)) if bias is None else bias
        self._arrays = strips, *map(_of_outputs, (less, scales, bias)), ACTIVATIONS.index(activation)

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs), a multiple of 16, to (rows, outputs)."""
        out = torch.empty(len(states), self._outputs)
        shared(_product_of_bytes, self._parts, states.contiguous().numpy(), *self._arrays, out.numpy())
        return out

    def multiply(self, whole: Tensor, of_rows: Tensor, out: Tensor) -> None:
        """Unsigned bytes around MIDDLE, (rows, inputs), one of which stands for its row's `of_rows`, into `out`."""
        shared(_multiply_bytes, self._parts, whole.numpy(), of_rows.numpy(), *self._arrays, out.numpy())


def _strips(weight: Tensor, together: int) -> Tensor:
    """(outputs, inputs) to (strips, steps, LANES, together), with outputs of nothing in the last tile."""
    outputs, inputs = weight.shape
    weight = F.pad(weight, (0, 0, 0, -outputs % TILE_COLUMNS))
    return weight.reshape(-1, LANES, inputs // together, together).transpose(1, 2)


def _of_outputs(numbers: Tensor) -> Any:
    """One of each output, with nothing for what fills the last tile."""
    return F.pad(numbers, (0, -len(numbers) % TILE_COLUMNS)).numpy()


@compiled
def _rows_of_tile(count):  # type: ignore[no-untyped-def]
    """The smallest tile that holds all rows, or the one of which several read least from the second cache."""
    for size in TILES:
        if count <= size:
            return size
    return TILES[1]


@compiled
def _side_by_side(rows, size):  # type: ignore[no-untyped-def]
    """Lanes of 32 bits, (rows, steps), as (tiles, steps, size): those of a tile's rows side by side, step by step."""
    count, steps = rows.shape
    tiles = (count + size - 1) // size
    out = aligned(tiles * steps * size).reshape((tiles, steps, size))
    for row in range(count):
        tile, place = row // size, row % size
        for step in range(steps):
            out[tile, step, place] = rows[row, step]
    return out


@compiled
def _product_of_floats(first, end, states, weight, bias, activation, out):  # type: ignore[no-untyped-def]
    """Outputs from the `first` TILE_COLUMNS on, up to the `end`."""
    nothing, none = np.empty(0, np.float32), np.empty(0, np.int32)
    _multiply(False, first, end, states.view(np.int32), nothing, weight, none, nothing, bias, activation, out)


@compiled
def _product_of_bytes(first, end, states, weight, less, scales, bias, activation, out):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """The same, of rows that are not bytes yet."""
    count, inputs = states.shape
    whole, of_rows = np.empty((count, inputs), np.uint8), np.empty(count, np.float32)
    for row in range(count):
        place = states.ctypes.data + row * inputs * 4
        of_rows[row] = quantized_row(place, inputs, MIDDLE, whole.ctypes.data + row * inputs)
    _multiply_bytes(first, end, whole, of_rows, weight, less, scales, bias, activation, out)


@compiled
def _multiply_bytes(first, end, states, of_rows, weight, less, scales, bias, activation, out):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """The same, of rows of unsigned bytes around MIDDLE, one of which stands for `of_rows`."""
    _multiply(True, first, end, states.view(np.int32), of_rows, weight, less, scales, bias, activation, out)


@compiled
def _multiply(of_bytes, first, end, states, of_rows, weight, less, scales, bias, activation, out):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Lanes of 32 bits, (rows, steps), tile by tile; only bytes have `of_rows`, `less` and `scales`."""
    size, steps = _rows_of_tile(len(states)), states.shape[1]
    rows = _side_by_side(states, size)
    sums, its = aligned(size * TILE_COLUMNS), aligned(TILE_COLUMNS).view(np.float32)
    for column in range(first * TILE_COLUMNS, end * TILE_COLUMNS, TILE_COLUMNS):
        columns, whole = weight.ctypes.data + column * steps * 4, column + TILE_COLUMNS <= out.shape[1]
        added = bias.ctypes.data + column * 4
        for tile in range(len(rows)):
            _sum_tile(of_bytes, size, rows.ctypes.data + tile * size * steps * 4, columns, steps, sums.ctypes.data)
            for row in range(min(size, len(out) - tile * size)):
                there = _place(out, tile * size + row, column) if whole else its.ctypes.data
                total = sums.ctypes.data + row * TILE_COLUMNS * 4
                if of_bytes:
                    by, scale = of_rows[tile * size + row], scales.ctypes.data + column * 4
                    scaled_sums(total, less.ctypes.data + column * 4, by, scale, added, TILE_COLUMNS, there)
                else:
                    added_row(total, added, TILE_COLUMNS, there)
                _activate(activation, there)
                if not whole:
                    _put(its, out, tile * size + row, column)


@compiled
def _activate(activation, place):  # type: ignore[no-untyped-def]
    """By the number of one of ACTIVATIONS."""
    if activation == _GELU:
        gelu_row(place, TILE_COLUMNS)
    elif activation == _GELU_TANH:
        gelu_tanh_row(place, TILE_COLUMNS)


@compiled
def _place(out, row, column):  # type: ignore[no-untyped-def]
    return out.ctypes.data + (row * out.shape[1] + column) * 4


@compiled
def _put(its, out, row, column):  # type: ignore[no-untyped-def]
    """What there is of a tile's row beside the last of the outputs."""
    for number in range(out.shape[1] - column):
        out[row, column + number] = its[number]


@compiled
def _sum_tile(of_bytes, size, rows, columns, steps, sums):  # type: ignore[no-untyped-def]
    """One tile's rows times TILE_COLUMNS outputs."""
    parts = size // TILE_ROWS
    for part in range(parts):
        further = part * (TILE_COLUMNS // parts)
        its = columns + further * steps * 4
        _multiply_tile(of_bytes, size, rows, its, steps, sums + further * 4, TILE_COLUMNS * 4)


@compiled
def _multiply_tile(of_bytes, size, place, columns, steps, out, across):  # type: ignore[no-untyped-def]
    small, middle = TILES[0], TILES[1]
    if of_bytes:
        if size == small:
            strips_of_bytes_6(place, columns, steps, out, across)
        elif size == middle:
            strips_of_bytes_12(place, columns, steps, out, across)
        else:
            strips_of_bytes_24(place, columns, steps, out, across)
    elif size == small:
        strips_of_floats_6(place, columns, steps, out, across)
    elif size == middle:
        strips_of_floats_12(place, columns, steps, out, across)
    else:
        strips_of_floats_24(place, columns, steps, out, across)
