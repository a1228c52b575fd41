"""Attention of all positions of an utterance to all, in integers: scores of int8, outputs of int16.

Queries and keys have a scale for each position. The mean of all keys is subtracted from each: it shifts all scores of a
query alike, which a softmax does not see, and what all keys have in common then costs no precision (SageAttention,
arXiv 2410.02367). Weights have 12 bits and values 10: a softmax has a long tail, which 8 bits would lose.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_int8_packing import (
    MAX_VALUE,
    MAX_VALUE_SUM,
    PADDING_SCALE,
    PADDING_SCORE,
    QKV_COLUMNS,
    VALUES_COLUMN,
    WEIGHT_BITS,
    pack_queries_and_keys,
    project_head,
    values_abs_max,
    weight_of_heads,
)
from worker.engines.chatterbox.kernels.attention_int8_tiled import attention_tiled
from worker.engines.chatterbox.kernels.attention_tiles import padded_length
from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI32, ArrayQuantized, aligned_zeros, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.packed_gemm import PackedInt8, PackedLinearInt8, multiplies_in_tiles
from worker.engines.chatterbox.kernels.quantize import ACTIVATION_BYTES, ACTIVATION_DTYPE
from worker.engines.chatterbox.kernels.simd.amx import TILE_ROW_BYTES
from worker.engines.chatterbox.kernels.simd.gemm import (
    INT8_GROUP,
    NR,
    tile_int8_from,
    tile_int16,
)
from worker.engines.chatterbox.kernels.simd.rows import interleave_int16, scale_sums
from worker.engines.chatterbox.kernels.simd.softmax import dequantize_scores, exp2_int16
from worker.engines.chatterbox.kernels.simd.targets import MR, TARGET


class SelfAttentionInt8:
    """Attention of each position to all, with the products that make queries, keys and values of its states.

    The weights are float32 (heads * width, inputs), without bias. A head's width is a multiple of 16, and at most 64;
    inputs is a multiple of 16.
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> None:
        self._heads, self._width = heads, len(query) // heads
        self._weight = PackedLinearInt8(weight_of_heads(query, key, value, heads), None).weight

    def __call__(self, quantized: Tensor, scales: Tensor) -> Tensor:
        """Quantized states, (time, inputs), with a scale for each, (time,), to float32 (time, heads * width)."""
        time, heads, width = len(quantized), self._heads, self._width
        out = torch.empty(time, heads * width)
        factor = np.float32(width**-0.5 * math.log2(math.e))
        max_value = np.float32(min(MAX_VALUE, MAX_VALUE_SUM // padded_length(time)))
        kernel = attention_tiled if TARGET.matrix_tiles and width == TILE_ROW_BYTES else _attention
        arrays = quantized.numpy(), scales.numpy(), self._weight
        parallel_for(kernel, heads, multiplies_in_tiles(quantized), *arrays, width, factor, max_value, out.numpy())
        return out


# Below, addresses stand for rows of arrays: float32 and int32 numbers take 4 bytes, int16 2.


@jit
def _attention(  # noqa: PLR0917
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
    """The heads `begin` to `end`."""
    time = len(states)
    qkv = np.empty((time, QKV_COLUMNS), np.float32)
    queries = np.zeros(((time + MR - 1) // MR * MR, width), ACTIVATION_DTYPE)
    query_scales = np.zeros(len(queries), np.float32)
    columns = padded_length(time)
    keys, values = aligned_zeros(columns * width // 4), aligned_zeros(columns * NR // 2)
    key_scales, corrections = aligned_zeros(columns).view(np.float32), aligned_zeros(columns)
    key_scales[time:], corrections[time:] = PADDING_SCALE, PADDING_SCORE
    for head in range(begin, end):
        start = head * width
        project_head(head, tiles, states, scales, weight, qkv)
        pack_queries_and_keys(qkv, factor, queries, query_scales, keys, key_scales, corrections)
        value_scale = _pack_values(qkv, width, max_value, values)
        _head_attention(queries, query_scales, keys, key_scales, corrections, values, value_scale, out, start)


@jit
def _pack_values(qkv: ArrayF32, width: int, max_value: np.float32, values: ArrayI32) -> np.float32:
    """Quantize one head's values to int16 pairs of two positions: (time / 2, NR, 2); returns their scale."""
    zeros = np.zeros(width, np.float32)
    largest = values_abs_max(qkv, width)
    for at in range(0, len(qkv), 2):
        even = qkv.ctypes.data + at * qkv.strides[0] + VALUES_COLUMN * 4
        odd = even + qkv.strides[0] if at + 1 < len(qkv) else zeros.ctypes.data
        interleave_int16(even, odd, width, max_value / largest, values.ctypes.data + at // 2 * NR * 4)
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
    """One head, whose output begins at the column `start`.

    MR queries at a time: their scores and weights stay in the core's first-level cache.
    """
    width, columns = queries.shape[1], len(corrections)
    score_sums, scores = aligned_zeros(MR * columns), aligned_zeros(columns)
    weights = aligned_zeros(MR * columns // 2)
    totals = np.empty(MR, np.float32)
    sums = np.empty((MR, NR), np.int32)
    for first in range(0, len(queries), MR):
        for at in range(0, columns, NR):
            tile_int8_from(
                queries.ctypes.data + first * width * ACTIVATION_BYTES,
                width * ACTIVATION_BYTES,
                keys.ctypes.data + at * width,
                NR * INT8_GROUP,
                width // INT8_GROUP,
                score_sums.ctypes.data + at * 4,
                columns * 4,
                corrections.ctypes.data + at * 4,
            )
        for row in range(MR):
            place = score_sums.ctypes.data + row * columns * 4
            maximum = dequantize_scores(place, key_scales.ctypes.data, columns, scores.ctypes.data)
            row_weights = weights.ctypes.data + row * columns * 2
            scale = query_scales[first + row]
            totals[row] = exp2_int16(scores.ctypes.data, maximum, scale, WEIGHT_BITS, columns, row_weights)
        tile_int16(
            weights.ctypes.data,
            columns * 2,
            values.ctypes.data,
            NR * 4,
            columns // 2,
            sums.ctypes.data,
            NR * 4,
        )
        for row in range(min(MR, len(out) - first)):
            place = out.ctypes.data + (first + row) * out.strides[0] + start * 4
            scale_sums(sums.ctypes.data + row * NR * 4, value_scale / totals[row], width, place)
