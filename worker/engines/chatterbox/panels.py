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

from worker.engines.chatterbox.compiled import compiled
from worker.engines.chatterbox.rows_int8 import MIDDLE, MOST, quantized
from worker.engines.chatterbox.vectors.code import LANES
from worker.engines.chatterbox.vectors.tiles import (
    TILE_COLUMNS,
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


class FloatPanels:
    """A float32 weight (outputs, inputs) and a bias (outputs,), or none."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._outputs = len(weight)
        self._weight = _strips(weight, 1)[..., 0].contiguous()
        self._bias = bias

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs) to (rows, outputs)."""
        rows = _tiled(states)
        sums = torch.empty(rows.shape[0] * rows.shape[2], len(self._weight) * LANES)
        _multiply_floats(rows.numpy(), self._weight.numpy(), sums.numpy())
        product = sums[: len(states), : self._outputs]
        return product.contiguous() if self._bias is None else product + self._bias


class BytePanels:
    """The same with weights as bytes, a scale for each output, and rows as bytes with a scale for each."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scales = (weight.abs().amax(1) / float(MOST)).clamp(min=torch.finfo(torch.float32).tiny)
        whole = (weight / scales[:, None]).round()
        self._weight = _strips(whole.to(torch.int8), _BYTES_A_LANE).contiguous()
        self._scales, self._bias = scales, torch.zeros_like(scales) if bias is None else bias
        # Rows are counted from their middle.
        self._less = (whole.sum(1) * int(MIDDLE)).to(torch.int32)

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs), a multiple of 16, to (rows, outputs)."""
        whole, scales = quantized(states.contiguous())
        rows = _tiled(whole.view(torch.int32))
        sums = torch.empty(rows.shape[0] * rows.shape[2], len(self._weight) * LANES, dtype=torch.int32)
        _multiply_bytes(rows.numpy(), self._weight.numpy().view(np.int32)[..., 0], sums.numpy())
        out = torch.empty(len(states), len(self._scales))
        _scale(sums.numpy(), *(part.numpy() for part in (self._less, scales, self._scales, self._bias, out)))
        return out


def _strips(weight: Tensor, together: int) -> Tensor:
    """(outputs, inputs) to (strips, steps, LANES, together), with outputs of nothing in the last tile."""
    outputs, inputs = weight.shape
    weight = F.pad(weight, (0, 0, 0, -outputs % TILE_COLUMNS))
    return weight.reshape(-1, LANES, inputs // together, together).transpose(1, 2)


def _tiled(rows: Tensor) -> Tensor:
    """(rows, steps) to (tiles, steps, rows of a tile), with rows of nothing in the last tile."""
    # Tiles of the middle shape read least of what is in the second cache already.
    size = next((tile for tile in TILES if len(rows) <= tile), TILES[1])
    return F.pad(rows, (0, 0, 0, -len(rows) % size)).view(-1, size, rows.shape[1]).transpose(1, 2).contiguous()


@compiled
def _multiply_floats(rows, weight, out):  # type: ignore[no-untyped-def]
    """TILE_COLUMNS outputs at a time, which come from memory for the first tile only."""
    tiles, steps, size = rows.shape
    across, of_tile = out.shape[1] * 4, steps * size * 4
    for strip in range(0, len(weight), TILE_COLUMNS // LANES):
        for tile in range(tiles):
            place, columns = rows.ctypes.data + tile * of_tile, weight.ctypes.data + strip * steps * LANES * 4
            its = out.ctypes.data + tile * size * across + strip * LANES * 4
            if size == 6:
                strips_of_floats_6(place, columns, steps, its, across)
            elif size == 12:
                for part in range(2):
                    begun = columns + part * 2 * steps * LANES * 4
                    strips_of_floats_12(place, begun, steps, its + part * 2 * LANES * 4, across)
            else:
                for part in range(4):
                    begun = columns + part * steps * LANES * 4
                    strips_of_floats_24(place, begun, steps, its + part * LANES * 4, across)


@compiled
def _multiply_bytes(rows, weight, out):  # type: ignore[no-untyped-def]
    """The same of bytes."""
    tiles, steps, size = rows.shape
    across, of_tile = out.shape[1] * 4, steps * size * 4
    for strip in range(0, len(weight), TILE_COLUMNS // LANES):
        for tile in range(tiles):
            place, columns = rows.ctypes.data + tile * of_tile, weight.ctypes.data + strip * steps * LANES * 4
            its = out.ctypes.data + tile * size * across + strip * LANES * 4
            if size == 6:
                strips_of_bytes_6(place, columns, steps, its, across)
            elif size == 12:
                for part in range(2):
                    begun = columns + part * 2 * steps * LANES * 4
                    strips_of_bytes_12(place, begun, steps, its + part * 2 * LANES * 4, across)
            else:
                for part in range(4):
                    begun = columns + part * steps * LANES * 4
                    strips_of_bytes_24(place, begun, steps, its + part * LANES * 4, across)


@compiled
def _scale(sums, less, scales, by, bias, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            product = np.float32(sums[row, column] - less[column]) * scales[row]
            out[row, column] = product * by[column] + bias[column]
