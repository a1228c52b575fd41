"""Linear layers for few rows and a large weight, as a packed matrix product: C[M,N] = A[M,K] · B[K,N] + bias.

A are the rows of states, B is the transposed weight, and C goes through an activation. A step of decoding consists of
such products. It is as fast as memory delivers B: a library's product of few rows reads it at two thirds of memory's
speed, see docs/benchmarks.md. Therefore:

- B is packed once into panels of LANES columns, (N / LANES, K, LANES), which memory delivers from end to end. All
  workers of a host share it, see `weights_cache`.
- A is packed in each call into panels of mr rows, (M / mr, K, mr), where mr is as large as M needs, so that the
  computation takes no longer than the reading does.
- A micro-kernel (`simd.gemm`) accumulates mr rows of C in registers over all of K. The epilogue then dequantizes them,
  adds the bias and applies the activation while they are in the core's first-level cache.

In int8, A are unsigned numbers around a zero point, A = row_scale · (Q - ZERO_POINT), and B are signed bytes with a
scale for each column. The zero-point correction, ZERO_POINT times the sum of B's column, is subtracted from the int32
sums.

A processor with AMX multiplies int8 in matrix tiles (`simd.amx`), from the same panels of B, where A has as many rows
as a tile; A is not packed for them.

A sum is accumulated over K in the same order for every mr, so a row's result does not depend on the other rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI8, ArrayI32, ArrayQuantized, aligned_zeros, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.quantize import (
    ACTIVATION_DTYPE,
    ZERO_POINT,
    quantize_rows,
    quantize_rows_of,
    quantize_weight,
)
from worker.engines.chatterbox.kernels.simd.activations import gelu_row, gelu_tanh_row, silu_row
from worker.engines.chatterbox.kernels.simd.amx import (
    TILE_NR,
    TILE_ROW_BYTES,
    TILE_ROWS,
    configure_tiles,
    multiply_16_rows,
    multiply_32_rows,
    release_tiles,
)
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import INT8_GROUP, NR, micro_kernel_f32, micro_kernel_int8
from worker.engines.chatterbox.kernels.simd.rows import add_bias, dequantize
from worker.engines.chatterbox.kernels.simd.targets import NR_VECTORS, TARGET, TILE_MR
from worker.engines.chatterbox.kernels.weights_cache import Arrays, packed

_BLOCKS = TARGET.packed_blocks
_MANY_ROWS_MR = TARGET.many_rows_mr
_MAX_MR = _BLOCKS[-1][0]
ACTIVATIONS = ("none", "gelu", "gelu-tanh", "silu")
"""The activations that C may go through."""
_GELU, _GELU_TANH, _SILU = 1, 2, 3

PackedInt8 = tuple[ArrayI8, ArrayI32, ArrayF32, ArrayF32, int]
"""A packed weight: its panels, and for each column of C correction, scale and bias; the index of the activation."""


class PackedLinearF32:
    """A linear layer with a packed float32 weight (outputs, inputs), a bias (outputs,) or none, and an activation."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        def pack() -> Arrays:
            panels = _pack_b(weight, 1)[..., 0].contiguous().numpy()
            return panels, _pad_columns(torch.zeros(len(weight)) if bias is None else bias)

        self._outputs, self._activation = len(weight), ACTIVATIONS.index(activation)
        self._weight, self._bias = packed(pack, 2)

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs) to (rows, outputs)."""
        out = torch.empty(len(states), self._outputs)
        arrays = states.contiguous().numpy(), self._weight, self._bias, self._activation, out.numpy()
        parallel_for(_linear_f32, len(self._bias) // NR, *arrays)
        return out


class PackedLinearInt8:
    """The same with an int8 weight that has a scale for each output, and rows quantized with a scale for each row."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        def pack() -> Arrays:
            quantized, scales = quantize_weight(weight)
            panels = _pack_b(quantized, INT8_GROUP).contiguous().numpy()
            corrections = quantized.sum(1, dtype=torch.int32) * int(ZERO_POINT)
            biases = torch.zeros(len(weight)) if bias is None else bias
            return panels, *map(_pad_columns, (corrections, scales, biases))

        panels, corrections, scales, biases = packed(pack, 4)
        self._outputs, self._blocks = len(weight), len(biases) // NR
        self.weight: PackedInt8 = panels, corrections, scales, biases, ACTIVATIONS.index(activation)

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (rows, inputs) to (rows, outputs); inputs is a multiple of 16."""
        out = torch.empty(len(states), self._outputs)
        if multiplies_in_tiles(states):
            self.multiply_quantized(*quantize_rows(states), out)
        else:
            # Each thread quantizes the few rows for itself: threads are started once, not twice.
            parallel_for(_linear_int8, self._blocks, states.contiguous().numpy(), self.weight, out.numpy())
        return out

    def multiply_quantized(self, quantized: Tensor, row_scales: Tensor, out: Tensor) -> None:
        """The same of rows that are quantized already: (rows, inputs) around ZERO_POINT, float32 (rows,)."""
        tiles = multiplies_in_tiles(quantized)
        parallel_for(gemm_int8, self._blocks, tiles, quantized.numpy(), row_scales.numpy(), self.weight, out.numpy())


def multiplies_in_tiles(a: Tensor) -> bool:
    """Whether the int8 product of A, (M, K), is computed in matrix tiles."""
    m, k = a.shape
    return m >= TILE_ROWS and fits_tiles(k)


def fits_tiles(k: int) -> bool:
    """Whether this processor has matrix tiles, and rows of so many bytes fill them."""
    return TARGET.matrix_tiles and k % TILE_ROW_BYTES == 0


def _pack_b(weight: Tensor, group: int) -> Tensor:
    """Pack a weight (N, K) into panels, (N / LANES, K / group, LANES, group); N is padded with zeros to whole NR."""
    n, k = weight.shape
    weight = F.pad(weight, (0, 0, 0, -n % NR))
    return weight.reshape(-1, LANES, k // group, group).transpose(1, 2)


def _pad_columns(numbers: Tensor) -> Any:
    """One number for each of N columns, padded with zeros to a multiple of NR."""
    return F.pad(numbers, (0, -len(numbers) % NR)).numpy()


@jit
def _choose_mr(m: int) -> int:
    """The smallest mr that holds all rows in one panel; for more rows, in as few panels as _MANY_ROWS_MR rows make."""
    rows = m if m <= _MAX_MR else _divide_up(m, _divide_up(m, _MANY_ROWS_MR))
    for mr, _ in _BLOCKS:
        if rows <= mr:
            return mr
    return _MAX_MR


@jit
def _divide_up(number: int, divisor: int) -> int:
    return (number + divisor - 1) // divisor


@jit
def _pack_a(a: ArrayI32, mr: int) -> ArrayI32:
    """Pack 32-bit groups of A, (M, K), into panels of mr rows, (M / mr, K, mr), the last one padded with zeros."""
    m, k = a.shape
    panels = _divide_up(m, mr)
    packed = aligned_zeros(panels * k * mr).reshape((panels, k, mr))
    for row in range(m):
        panel, place = row // mr, row % mr
        for index in range(k):
            packed[panel, index, place] = a[row, index]
    return packed


# The functions below compute the blocks `begin` to `end` of NR columns of C.


@jit
def _linear_f32(begin: int, end: int, a: ArrayF32, b: ArrayF32, bias: ArrayF32, activation: int, c: ArrayF32) -> None:
    no_scales, no_corrections = np.empty(0, np.float32), np.empty(0, np.int32)
    _gemm(False, begin, end, a.view(np.int32), no_scales, b, no_corrections, no_scales, bias, activation, c)


@jit
def _linear_int8(begin: int, end: int, a: ArrayF32, weight: PackedInt8, c: ArrayF32) -> None:
    quantized, row_scales = np.empty(a.shape, ACTIVATION_DTYPE), np.empty(len(a), np.float32)
    quantize_rows_of(0, len(a), a, quantized, row_scales)
    # Not by `gemm_int8`: of a literal False Numba would compile that a second time, with the product in tiles.
    b, corrections, column_scales, bias, activation = weight
    _gemm(True, begin, end, quantized.view(np.int32), row_scales, b, corrections, column_scales, bias, activation, c)


@jit
def gemm_int8(
    begin: int, end: int, tiles: bool, a: ArrayQuantized, row_scales: ArrayF32, weight: PackedInt8, c: ArrayF32
) -> None:
    """C = activation(A · B + bias) of quantized rows A, (M, K), with their scales; in matrix `tiles` where K fits."""
    b, corrections, column_scales, bias, activation = weight
    if tiles:
        _gemm_int8_tiled(begin, end, a, row_scales, b, corrections, column_scales, bias, activation, c)
    else:
        _gemm(True, begin, end, a.view(np.int32), row_scales, b, corrections, column_scales, bias, activation, c)


@jit
def multiply_int8(tiles: bool, a: ArrayQuantized, row_scales: ArrayF32, weight: PackedInt8, c: ArrayF32) -> None:
    """All of `gemm_int8`, for kernels that multiply among other things."""
    # Of a literal zero Numba would compile the product a second time.
    gemm_int8(int(np.int64(0)), len(weight[3]) // NR, tiles, a, row_scales, weight, c)


@jit
def _gemm(  # noqa: PLR0917
    int8: bool,
    begin: int,
    end: int,
    a: ArrayI32,
    row_scales: ArrayF32,
    b: ArrayF32 | ArrayI8,
    corrections: ArrayI32,
    column_scales: ArrayF32,
    bias: ArrayF32,
    activation: int,
    c: ArrayF32,
) -> None:
    """C = A · B with A as 32-bit groups, (M, K); only int8 has scales and corrections."""
    mr, k = _choose_mr(len(a)), a.shape[1]
    column_bytes = k * (INT8_GROUP if int8 else 4)
    panels = _pack_a(a, mr)
    sums, edge = aligned_zeros(mr * NR), aligned_zeros(mr * NR).view(np.float32)
    for column in range(begin * NR, end * NR, NR):
        b_panels = b.ctypes.data + column * column_bytes
        for panel in range(len(panels)):
            first = panel * mr
            _multiply_panel(int8, mr, panels.ctypes.data + first * k * 4, b_panels, column_bytes, k, sums.ctypes.data)
            rows = min(mr, len(c) - first)
            out, out_bytes = _place(c, first, column, edge)
            if int8:
                _dequantize(sums, rows, first, column, row_scales, corrections, column_scales, bias, out, out_bytes)
            else:
                for row in range(rows):
                    place = sums.ctypes.data + row * NR * 4
                    add_bias(place, bias.ctypes.data + column * 4, NR, out + row * out_bytes)
            _activate(activation, rows, out, out_bytes)
            _copy_edge(edge, rows, c, first, column)


@jit
def _gemm_int8_tiled(  # noqa: PLR0917
    begin: int,
    end: int,
    a: ArrayQuantized,
    row_scales: ArrayF32,
    b: ArrayI8,
    corrections: ArrayI32,
    column_scales: ArrayF32,
    bias: ArrayF32,
    activation: int,
    c: ArrayF32,
) -> None:
    """C = A · B with A as unsigned bytes, (M, K), in matrix tiles; K is a multiple of TILE_ROW_BYTES."""
    m, k = a.shape
    # The last panel may have fewer rows than a tile.
    last = (m - 1) // TILE_MR * TILE_MR
    last_panel = np.zeros((TILE_MR, k), a.dtype)
    last_panel[: m - last] = a[last:]
    sums, edge = aligned_zeros(TILE_MR * NR), aligned_zeros(TILE_MR * NR).view(np.float32)
    no_sums = aligned_zeros(TILE_NR)
    configure_tiles()
    for column in range(begin * NR, end * NR, NR):
        for first in range(0, m, TILE_MR):
            panel = last_panel.ctypes.data if first == last else a.ctypes.data + first * k
            rows = min(TILE_MR, m - first)
            _multiply_tiles(panel, rows, b.ctypes.data + column * k, k, sums.ctypes.data, no_sums.ctypes.data)
            out, out_bytes = _place(c, first, column, edge)
            _dequantize(sums, rows, first, column, row_scales, corrections, column_scales, bias, out, out_bytes)
            _activate(activation, rows, out, out_bytes)
            _copy_edge(edge, rows, c, first, column)
    release_tiles()


@jit
def _multiply_tiles(a: int, rows: int, b: int, k: int, sums: int, initial: int) -> None:
    """sums[rows,NR] = A · B of a panel of A."""
    for column in range(0, NR, TILE_NR):
        panels, count, c = b + column * k, k // TILE_ROW_BYTES, sums + column * 4
        if rows <= TILE_ROWS:
            multiply_16_rows(a, k, panels, TILE_ROW_BYTES, LANES * k, count, c, NR * 4, initial)
        else:
            multiply_32_rows(a, k, panels, TILE_ROW_BYTES, LANES * k, count, c, NR * 4, initial)


# The epilogue of a block of C, whose first element is in the row `first` and the column `column`. C may end within the
# last block: that one is computed in `edge`, (rows, NR), from where its columns are copied.


@jit
def _place(c: ArrayF32, first: int, column: int, edge: ArrayF32) -> tuple[int, int]:
    """The address of the block's first row, and the bytes from there to the next."""
    if column + NR <= c.shape[1]:
        return c.ctypes.data + (first * c.shape[1] + column) * 4, c.shape[1] * 4
    return edge.ctypes.data, NR * 4


@jit
def _dequantize(  # noqa: PLR0917
    sums: ArrayI32,
    rows: int,
    first: int,
    column: int,
    row_scales: ArrayF32,
    corrections: ArrayI32,
    column_scales: ArrayF32,
    bias: ArrayF32,
    out: int,
    out_bytes: int,
) -> None:
    scales, offset = row_scales.ctypes.data + first * 4, column * 4
    arrays = corrections.ctypes.data + offset, column_scales.ctypes.data + offset, bias.ctypes.data + offset
    dequantize(sums.ctypes.data, rows, arrays[0], scales, arrays[1], arrays[2], out, out_bytes)


@jit
def _activate(activation: int, rows: int, out: int, out_bytes: int) -> None:
    """Apply the activation of that index in ACTIVATIONS to rows of NR numbers in place."""
    if activation == _GELU:
        for row in range(rows):
            gelu_row(out + row * out_bytes, NR)
    elif activation == _GELU_TANH:
        for row in range(rows):
            gelu_tanh_row(out + row * out_bytes, NR)
    elif activation == _SILU:
        for row in range(rows):
            silu_row(out + row * out_bytes, NR)


@jit
def _copy_edge(edge: ArrayF32, rows: int, c: ArrayF32, first: int, column: int) -> None:
    """Copy to C those of the last block's columns that it has."""
    if column + NR > c.shape[1]:
        for row in range(rows):
            for number in range(c.shape[1] - column):
                c[first + row, column + number] = edge[row * NR + number]


@jit
def _multiply_panel(int8: bool, mr: int, a: int, b: int, column_bytes: int, k: int, sums: int) -> None:
    """sums[mr,NR] = A · B of one panel of A, by as many micro-kernels side by side as NR columns take."""
    nr = _block_vectors(mr) * LANES
    for column in range(0, NR, nr):
        _run_micro_kernel(int8, mr, a, b + column * column_bytes, k, sums + column * 4, NR * 4)


@jit
def _block_vectors(mr: int) -> int:
    for height, vectors in _BLOCKS:
        if mr == height:
            return vectors
    return NR_VECTORS


@jit
def _run_micro_kernel(int8: bool, mr: int, a: int, b: int, k: int, c: int, ldc: int) -> None:
    if int8:
        micro_kernel_int8(mr, a, b, k, c, ldc)
    else:
        micro_kernel_f32(mr, a, b, k, c, ldc)
