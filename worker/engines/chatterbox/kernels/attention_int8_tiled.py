"""Attention in int8 as `attention_int8` computes it, in AMX's matrix tiles; equal bit for bit.

Matrix tiles have no products of int16. Weights of 12 bits and values of 10 are halved into bytes: the four sums of
their products, joined, are the sum of the products of the whole numbers.
"""

from __future__ import annotations

import numpy as np

from worker.engines.chatterbox.kernels.attention_int8_packing import (
    PADDING_SCALE,
    PADDING_SCORE,
    QKV_COLUMNS,
    VALUES_COLUMN,
    WEIGHT_BITS,
    pack_queries_and_keys,
    project_head,
    values_abs_max,
)
from worker.engines.chatterbox.kernels.attention_tiles import padded_length
from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI32, ArrayQuantized, aligned_zeros, jit
from worker.engines.chatterbox.kernels.packed_gemm import PackedInt8
from worker.engines.chatterbox.kernels.quantize import ACTIVATION_DTYPE
from worker.engines.chatterbox.kernels.simd.amx import (
    TILE_NR,
    TILE_ROW_BYTES,
    TILE_ROWS,
    configure_tiles,
    multiply_16_rows,
    multiply_32_rows,
    release_tiles,
)
from worker.engines.chatterbox.kernels.simd.gemm import INT8_GROUP, NR
from worker.engines.chatterbox.kernels.simd.rows import interleave_halves, join_halves
from worker.engines.chatterbox.kernels.simd.softmax import dequantize_scores, exp2_halves

_VALUE_COLUMNS = 2 * NR
"""The values' low bytes, then their high bytes."""


@jit
def attention_tiled(  # noqa: PLR0917
    begin: int,
    end: int,
    tiles: bool,
    states: ArrayQuantized,
    scales: ArrayF32,
    weight: PackedInt8,
    width: int,
    factor: np.float32,
    max_value: np.float32,
    out: ArrayF32,
) -> None:
    """The heads `begin` to `end`, each TILE_ROW_BYTES wide."""
    time = len(states)
    qkv = np.empty((time, QKV_COLUMNS), np.float32)
    queries = np.zeros(((time + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS, width), ACTIVATION_DTYPE)
    query_scales = np.zeros(len(queries), np.float32)
    columns = padded_length(time)
    keys, values = aligned_zeros(columns * width // 4), aligned_zeros(columns * _VALUE_COLUMNS // 4)
    key_scales, corrections = aligned_zeros(columns).view(np.float32), aligned_zeros(columns)
    key_scales[time:], corrections[time:] = PADDING_SCALE, PADDING_SCORE
    for head in range(begin, end):
        start = head * width
        project_head(head, tiles, states, scales, weight, qkv)
        pack_queries_and_keys(qkv, factor, queries, query_scales, keys, key_scales, corrections)
        value_scale = _pack_values(qkv, max_value, values, columns)
        _head_attention(queries, query_scales, keys, key_scales, corrections, values, value_scale, out, start)


@jit
def _pack_values(qkv: ArrayF32, max_value: np.float32, values: ArrayI32, columns: int) -> np.float32:
    """Quantize one head's values to two bytes each, see `interleave_halves`; returns their scale.

    They are int8 (_VALUE_COLUMNS / 16, columns / 4, 16, 4).
    """
    largest = values_abs_max(qkv, NR)
    panel_bytes = columns * TILE_ROWS
    low, high = values.ctypes.data, values.ctypes.data + NR * columns
    last = np.zeros((4, NR), np.float32)
    whole = len(qkv) // 4 * 4
    last[: len(qkv) - whole] = qkv[whole:, VALUES_COLUMN:]
    for at in range(0, len(qkv), 4):
        rows, row_bytes = qkv.ctypes.data + at * qkv.strides[0] + VALUES_COLUMN * 4, qkv.strides[0]
        if at == whole:
            rows, row_bytes = last.ctypes.data, NR * 4
        offset = at * TILE_ROWS
        interleave_halves(rows, row_bytes, NR, max_value / largest, low + offset, high + offset, panel_bytes)
    return largest / max_value


@jit
def _head_attention(  # noqa: PLR0917
    queries: ArrayQuantized,
    query_scales: ArrayF32,
    keys: ArrayI32,
    key_scales: ArrayF32,
    corrections: ArrayI32,
    values: ArrayI32,
    value_scale: np.float32,
    out: ArrayF32,
    start: int,
) -> None:
    """One head, whose output begins at the column `start`; the queries of a tile at a time."""
    columns, no_sums = len(corrections), aligned_zeros(TILE_NR)
    score_sums, scores = aligned_zeros(TILE_ROWS * columns), aligned_zeros(columns)
    # Low bytes of the weights of a tile's queries, then their high bytes.
    weights = aligned_zeros(2 * TILE_ROWS * columns // 4)
    totals = np.empty(TILE_ROWS, np.float32)
    sums = aligned_zeros(2 * TILE_ROWS * _VALUE_COLUMNS)
    configure_tiles()
    for first in range(0, len(queries), TILE_ROWS):
        for at in range(0, columns, TILE_NR):
            panel = keys.ctypes.data + at // NR * NR * TILE_ROW_BYTES + at % NR * INT8_GROUP
            multiply_16_rows(
                queries.ctypes.data + first * TILE_ROW_BYTES,
                TILE_ROW_BYTES,
                panel,
                NR * INT8_GROUP,
                TILE_ROW_BYTES,
                1,
                score_sums.ctypes.data + at * 4,
                columns * 4,
                corrections.ctypes.data + at * 4,
            )
        for row in range(TILE_ROWS):
            place = score_sums.ctypes.data + row * columns * 4
            maximum = dequantize_scores(place, key_scales.ctypes.data, columns, scores.ctypes.data)
            low, scale = weights.ctypes.data + row * columns, query_scales[first + row]
            high = low + TILE_ROWS * columns
            totals[row] = exp2_halves(scores.ctypes.data, maximum, scale, WEIGHT_BITS, columns, low, high)
        for at in range(0, _VALUE_COLUMNS, TILE_NR):
            multiply_32_rows(
                weights.ctypes.data,
                columns,
                values.ctypes.data + at * columns,
                TILE_ROW_BYTES,
                columns * TILE_ROWS,
                columns // TILE_ROW_BYTES,
                sums.ctypes.data + at * 4,
                _VALUE_COLUMNS * 4,
                no_sums.ctypes.data,
            )
        for row in range(min(TILE_ROWS, len(out) - first)):
            low_sums = sums.ctypes.data + row * _VALUE_COLUMNS * 4
            high_sums = low_sums + TILE_ROWS * _VALUE_COLUMNS * 4
            place = out.ctypes.data + (first + row) * out.strides[0] + start * 4
            join_halves(low_sums, high_sums, NR * 4, value_scale / totals[row], place)
    release_tiles()
