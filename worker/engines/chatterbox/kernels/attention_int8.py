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

from worker.engines.chatterbox.kernels.attention_tiles import padded_length
from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI32, ArrayQuantized, aligned_zeros, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.quantize import (
    ACTIVATION_BYTES,
    ACTIVATION_DTYPE,
    MIN_ABS_MAX,
    ZERO_POINT,
    quantize_activations,
    quantize_row,
)
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import (
    INT8_GROUP,
    NR,
    tile_int8,
    tile_int8_from,
    tile_int16,
    transpose_block,
)
from worker.engines.chatterbox.kernels.simd.rows import abs_max, interleave_int16
from worker.engines.chatterbox.kernels.simd.softmax import dequantize_scores, exp2_int16
from worker.engines.chatterbox.kernels.simd.targets import MR

WEIGHT_BITS = np.float32(12)
"""The largest weight of a query's softmax is quantized to 2**12."""
MAX_VALUE = 511
"""The largest value is quantized to this, or to less in an utterance so long that a sum could pass 2**31."""
_MAX_VALUE_SUM = (1 << 31 - 12) - 1

_PADDING_SCALE, _PADDING_SCORE = np.float32(1e28), -(1 << 30)
"""The positions that fill the last tile get a score so low that they weigh nothing, yet a finite one."""


def attention_int8(qkv: Tensor, heads: int) -> Tensor:
    """Attention of each position to all: float32 (time, 3 * heads * width) to (time, heads * width).

    `qkv` has queries, keys and values side by side. A head's width is a multiple of 16, and at most 64.
    """
    time, width = qkv.shape[0], qkv.shape[1] // 3
    out = torch.empty(time, width)
    factor = np.float32((width // heads) ** -0.5 * math.log2(math.e))
    max_value = np.float32(min(MAX_VALUE, _MAX_VALUE_SUM // padded_length(time)))
    parallel_for(_attention, heads, qkv.numpy(), heads, factor, max_value, out.numpy())
    return out


# Below, addresses stand for rows of arrays: float32 and int32 numbers take 4 bytes, int16 2.


@jit
def _attention(
    begin: int, end: int, qkv: ArrayF32, heads: int, factor: np.float32, max_value: np.float32, out: ArrayF32
) -> None:
    """The heads `begin` to `end`."""
    time, width = qkv.shape[0], qkv.shape[1] // 3 // heads
    queries = np.zeros(((time + MR - 1) // MR * MR, width), ACTIVATION_DTYPE)
    query_scales = np.zeros(len(queries), np.float32)
    columns = padded_length(time)
    keys, values = aligned_zeros(columns * width // 4), aligned_zeros(columns * NR // 2)
    key_scales, corrections = aligned_zeros(columns).view(np.float32), aligned_zeros(columns)
    key_scales[time:], corrections[time:] = _PADDING_SCALE, _PADDING_SCORE
    for head in range(begin, end):
        start = head * width
        for at in range(time):
            place = qkv.ctypes.data + at * qkv.strides[0] + start * 4
            query = queries.ctypes.data + at * width * ACTIVATION_BYTES
            query_scales[at] = factor * quantize_activations(place, width, query)
        _pack_keys(qkv, (heads + head) * width, width, keys, key_scales)
        _zero_point_corrections(keys, time, corrections)
        value_scale = _pack_values(qkv, (2 * heads + head) * width, width, max_value, values)
        _head_attention(queries, query_scales, keys, key_scales, corrections, values, value_scale, out, start)


@jit
def _pack_keys(qkv: ArrayF32, start: int, width: int, keys: ArrayI32, scales: ArrayF32) -> None:
    """Quantize one head's keys less their mean, into panels of NR positions.

    The panels are int8 (time / NR, width / INT8_GROUP, NR, INT8_GROUP).
    """
    time = len(qkv)
    mean, key = np.zeros(width, np.float32), np.empty(width, np.float32)
    for at in range(time):
        for lane in range(width):
            mean[lane] += qkv[at, start + lane]
    for lane in range(width):
        mean[lane] /= np.float32(time)
    # 32-bit groups of four bytes: width / 4 of them for each of LANES keys, at most as many as the block has columns.
    block = np.zeros((LANES, LANES), np.int32)
    transposed = np.empty((LANES, LANES), np.int32)
    for at in range(time):
        for lane in range(width):
            key[lane] = qkv[at, start + lane] - mean[lane]
        block_row = at % LANES
        scales[at] = quantize_row(key.ctypes.data, width, block.ctypes.data + block_row * LANES * 4)
        if block_row == LANES - 1 or at == time - 1:
            transpose_block(block.ctypes.data, LANES * 4, transposed.ctypes.data, LANES * 4)
            _store_keys(transposed, at - block_row, width, keys)


@jit
def _store_keys(block: ArrayI32, first: int, width: int, keys: ArrayI32) -> None:
    """Store LANES keys from position `first` on: their width in groups of four bytes, (width / 4, LANES)."""
    if INT8_GROUP == 4:
        place = first // NR * (NR * width // 4) + first % NR
        for number in range(width // 4):
            for lane in range(LANES):
                keys[place + number * NR + lane] = block[number, lane]
    else:
        halves = keys.view(np.int16)
        place = first // NR * (NR * width // 2) + first % NR
        for number in range(width // 4):
            for lane in range(LANES):
                halves[place + 2 * number * NR + lane] = block[number, lane]
                halves[place + (2 * number + 1) * NR + lane] = block[number, lane] >> 16


@jit
def _zero_point_corrections(keys: ArrayI32, time: int, corrections: ArrayI32) -> None:
    """The product of the queries' ZERO_POINT with each key, negated: the sums of the scores start from it."""
    width = len(keys) * 4 // len(corrections)
    rows = np.full((MR, width), ZERO_POINT, ACTIVATION_DTYPE)
    sums = np.empty((MR, NR), np.int32)
    for at in range(0, time, NR):
        panel = keys.ctypes.data + at * width
        tile_int8(
            rows.ctypes.data,
            width * ACTIVATION_BYTES,
            panel,
            NR * INT8_GROUP,
            width // INT8_GROUP,
            sums.ctypes.data,
            NR * 4,
        )
        for number in range(min(NR, time - at)):
            corrections[at + number] = -sums[0, number]


@jit
def _pack_values(qkv: ArrayF32, start: int, width: int, max_value: np.float32, values: ArrayI32) -> np.float32:
    """Quantize one head's values to int16 pairs of two positions: (time / 2, NR, 2); returns their scale."""
    zeros = np.zeros(width, np.float32)
    largest = MIN_ABS_MAX
    for at in range(len(qkv)):
        largest = max(largest, abs_max(qkv.ctypes.data + at * qkv.strides[0] + start * 4, width))
    for at in range(0, len(qkv), 2):
        even = qkv.ctypes.data + at * qkv.strides[0] + start * 4
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
            factor = value_scale / totals[row]
            for number in range(width):
                out[first + row, start + number] = np.float32(sums[row, number]) * factor
