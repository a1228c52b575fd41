"""The operands of attention in int8: queries, keys and values of one head, quantized and packed, and their scales.

A head's queries, keys and values are computed for all positions right before they are quantized, while the core's
second-level cache holds them: those of all heads would leave it before they are read again.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI32, ArrayQuantized, jit
from worker.engines.chatterbox.kernels.packed_gemm import PackedInt8, multiply_int8
from worker.engines.chatterbox.kernels.quantize import (
    ACTIVATION_BYTES,
    ACTIVATION_DTYPE,
    MIN_ABS_MAX,
    ZERO_POINT,
    quantize_activations,
    quantize_row,
)
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import INT8_GROUP, NR, tile_int8, transpose_block
from worker.engines.chatterbox.kernels.simd.rows import abs_max
from worker.engines.chatterbox.kernels.simd.targets import MR

WEIGHT_BITS = np.float32(12)
"""The largest weight of a query's softmax is quantized to 2**12."""
MAX_VALUE = 511
"""The largest value is quantized to this, or to less in an utterance so long that a sum could pass 2**31."""
MAX_VALUE_SUM = (1 << 31 - 12) - 1

QKV_COLUMNS = 3 * NR
KEYS_COLUMN, VALUES_COLUMN = NR, 2 * NR
"""Columns at which one head's keys and values begin in its `qkv`, float32 (time, QKV_COLUMNS), behind its queries."""

PADDING_SCALE, PADDING_SCORE = np.float32(1e28), -(1 << 30)
"""The positions that fill the last tile get a score so low that they weigh nothing, yet a finite one."""


def weight_of_heads(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """The weights of all heads, float32 (heads * width, inputs) each, head after head: (heads * QKV_COLUMNS, inputs).

    Each has a head's queries, keys and values, filled up with zeros to NR columns each.
    """
    rows = torch.stack([weight.unflatten(0, (heads, -1)) for weight in (query, key, value)], 1)
    return F.pad(rows, (0, 0, 0, NR - rows.shape[2])).flatten(0, 2)


# Below, addresses stand for rows of arrays: float32 and int32 numbers take 4 bytes.


@jit
def project_head(
    head: int, tiles: bool, states: ArrayQuantized, scales: ArrayF32, weight: PackedInt8, qkv: ArrayF32
) -> None:
    """Queries, keys and values of one head, from quantized states, (time, inputs), and their scales, (time,)."""
    panels, corrections, column_scales, bias, activation = weight
    begin, end = head * QKV_COLUMNS, (head + 1) * QKV_COLUMNS
    columns = slice(begin, end)
    of_head = (
        panels[begin // LANES : end // LANES],
        corrections[columns],
        column_scales[columns],
        bias[columns],
        activation,
    )
    multiply_int8(tiles, states, scales, of_head, qkv)


@jit
def pack_queries_and_keys(
    qkv: ArrayF32,
    factor: np.float32,
    queries: ArrayQuantized,
    query_scales: ArrayF32,
    keys: ArrayI32,
    key_scales: ArrayF32,
    corrections: ArrayI32,
) -> None:
    """Quantize one head's queries, whose scales are multiplied by `factor`, and its keys, with their corrections."""
    time, width = len(qkv), queries.shape[1]
    for at in range(time):
        place = qkv.ctypes.data + at * qkv.strides[0]
        query = queries.ctypes.data + at * width * ACTIVATION_BYTES
        query_scales[at] = factor * quantize_activations(place, width, query)
    _pack_keys(qkv, width, keys, key_scales)
    _zero_point_corrections(keys, time, corrections)


@jit
def _pack_keys(qkv: ArrayF32, width: int, keys: ArrayI32, scales: ArrayF32) -> None:
    """Quantize one head's keys less their mean, into panels of NR positions.

    The panels are int8 (time / NR, width / INT8_GROUP, NR, INT8_GROUP).
    """
    time = len(qkv)
    mean, key = np.zeros(width, np.float32), np.empty(width, np.float32)
    for at in range(time):
        for lane in range(width):
            mean[lane] += qkv[at, KEYS_COLUMN + lane]
    for lane in range(width):
        mean[lane] /= np.float32(time)
    # 32-bit groups of four bytes: width / 4 of them for each of LANES keys, at most as many as the block has columns.
    block = np.zeros((LANES, LANES), np.int32)
    transposed = np.empty((LANES, LANES), np.int32)
    for at in range(time):
        for lane in range(width):
            key[lane] = qkv[at, KEYS_COLUMN + lane] - mean[lane]
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
def values_abs_max(qkv: ArrayF32, width: int) -> np.float32:
    """The largest magnitude of one head's values."""
    largest = MIN_ABS_MAX
    for at in range(len(qkv)):
        largest = max(largest, abs_max(qkv.ctypes.data + at * qkv.strides[0] + VALUES_COLUMN * 4, width))
    return largest
