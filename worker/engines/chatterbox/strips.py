"""Few rows times large weights, which are read from end to end: what a step of decoding is made of.

A library's product of a few rows reads weights at two thirds of the speed of memory, see docs/engine.md. Here they lie
as a processor reads them: in strips of LANES outputs, input by input; and a tile has as many rows as there are, so that
computing takes no longer than reading does. A number's sum is taken input by input whatever the tile, so that what
comes of a row does not depend on the others. For processors with AVX-512, bytes for those with VNNI.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.compiled import aligned, compiled, shared
from worker.engines.chatterbox.rows_int8 import MIDDLE, quantized_row, quantized_weight
from worker.engines.chatterbox.vectors.code import LANES
from worker.engines.chatterbox.vectors.tiles import (
    TILE_COLUMNS,
    TILE_ROWS,
    strips_of_bytes_6,
    strips_of_bytes_12,
    strips_of_bytes_24,
    strips_of_floats_6,
    strips_of_floats_12,
    strips_of_floats_24,
)

TILES = (6, 12, 24)
"""Rows of a tile."""
_BYTES_A_LANE = 4


class FloatStrips:
    """A float32 weight (outputs, inputs) and a bias (outputs,), or none."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = _strips(weight, 1)[..., 0].contiguous().numpy()
        self._bias = (torch.zeros(len(weight)) if bias is None else bias).numpy()

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs) to (rows, outputs)."""
        out = torch.empty(len(states), len(self._bias))
        parts = len(self._weight) * LANES // TILE_COLUMNS
        shared(_product_of_floats, parts, states.contiguous().numpy(), self._weight, self._bias, out.numpy())
        return out


class ByteStrips:
    """The same with weights as bytes, a scale for each output, and rows as bytes with a scale for each."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        whole, scales = quantized_weight(weight)
        self._weight = _strips(whole, _BYTES_A_LANE).contiguous().numpy().view(np.int32)[..., 0]
        self._scales = scales.numpy()
        self._bias = (torch.zeros(len(weight)) if bias is None else bias).numpy()
        # Rows are counted from their middle.
        self._less = (whole.sum(1, dtype=torch.int32) * int(MIDDLE)).numpy()

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs), a multiple of 16, to (rows, outputs)."""
        out = torch.empty(len(states), len(self._bias))
        arrays = states.contiguous().numpy(), self._weight, self._less, self._scales, self._bias, out.numpy()
        shared(_product_of_bytes, len(self._weight) * LANES // TILE_COLUMNS, *arrays)
        return out


def _strips(weight: Tensor, together: int) -> Tensor:
    """(outputs, inputs) to (strips, steps, LANES, together), with outputs of nothing in the last tile."""
    outputs, inputs = weight.shape
    weight = F.pad(weight, (0, 0, 0, -outputs % TILE_COLUMNS))
    return weight.reshape(-1, LANES, inputs // together, together).transpose(1, 2)


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
def _product_of_floats(first, end, states, weight, bias, out):  # type: ignore[no-untyped-def]
    """Outputs from the `first` TILE_COLUMNS on, up to the `end`."""
    size, across = _rows_of_tile(len(states)), (end - first) * TILE_COLUMNS
    before = first * TILE_COLUMNS
    rows = _side_by_side(states.view(np.int32), size)
    sums = aligned(len(rows) * size * across).view(np.float32).reshape((len(rows) * size, across))
    _multiply(rows, weight[before // LANES :], sums, of_bytes=False)
    for row in range(out.shape[0]):
        for column in range(min(across, out.shape[1] - before)):
            out[row, before + column] = sums[row, column] + bias[before + column]


@compiled
def _product_of_bytes(first, end, states, weight, less, scales, bias, out):  # type: ignore[no-untyped-def]
    """The same."""
    count, inputs = states.shape
    size, across = _rows_of_tile(count), (end - first) * TILE_COLUMNS
    before = first * TILE_COLUMNS
    whole, of_rows = np.empty((count, inputs), np.uint8), np.empty(count, np.float32)
    for row in range(count):
        place = states.ctypes.data + row * inputs * 4
        of_rows[row] = quantized_row(place, inputs, MIDDLE, whole.ctypes.data + row * inputs)
    rows = _side_by_side(whole.view(np.int32), size)
    sums = aligned(len(rows) * size * across).reshape((len(rows) * size, across))
    _multiply(rows, weight[before // LANES :], sums, of_bytes=True)
    for row in range(count):
        for column in range(min(across, out.shape[1] - before)):
            output = before + column
            product = np.float32(sums[row, column] - less[output]) * of_rows[row]
            out[row, output] = product * scales[output] + bias[output]


@compiled
def _multiply(rows, weight, out, of_bytes):  # type: ignore[no-untyped-def]
    """TILE_COLUMNS outputs at a time, which come from memory for the first tile only."""
    tiles, steps, size = rows.shape
    across, parts = out.shape[1] * 4, size // TILE_ROWS
    for first in range(0, out.shape[1], TILE_COLUMNS):
        for tile in range(tiles):
            place = rows.ctypes.data + tile * steps * size * 4
            for part in range(parts):
                column = first + part * (TILE_COLUMNS // parts)
                its = out.ctypes.data + tile * size * across + column * 4
                _multiply_tile(of_bytes, size, place, weight.ctypes.data + column * steps * 4, steps, its, across)


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
