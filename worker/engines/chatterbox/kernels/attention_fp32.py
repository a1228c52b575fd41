"""Attention of all positions of an utterance to all, in float32: softmax(Q Kᵀ / sqrt(d)) V, head by head.

MR queries are computed at a time, so that their scores never leave the core's cache. Made for processors with AVX-512,
where PyTorch's own attention takes a third longer; other processors use PyTorch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_tiles import HEAD_DIM, MASKED_SCORE, SOFTMAX_FACTOR, padded_length
from worker.engines.chatterbox.kernels.jit import ArrayF32, aligned_zeros, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import NR, tile_f32, transpose_block
from worker.engines.chatterbox.kernels.simd.softmax import exp2_f32
from worker.engines.chatterbox.kernels.simd.targets import MR

KEY_LANE_BYTES = NR * 4
"""Packed keys are panels of NR positions, (time / NR, HEAD_DIM, NR): bytes from one dimension of a head to the next."""


def attention_fp32(
    queries: Tensor, keys: Tensor, values: Tensor, relative: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Attention of each position to all: float32 (time, heads * HEAD_DIM) to the same shape.

    `relative` adds to each score one for the distance of the two positions (Transformer-XL, arXiv 1901.02860): the
    product of a position's second query, shaped as the queries, with the key of the distance, float32
    (2 * time - 1, heads * HEAD_DIM), whose row n is for a distance of time - 1 - n.
    """
    out = torch.empty(queries.shape)
    distance_queries, distance_keys = (queries, queries[:0]) if relative is None else relative
    tensors = queries, keys, values, distance_queries, distance_keys
    arrays = [tensor.contiguous().numpy() for tensor in tensors]
    parallel_for(_attention, queries.shape[1] // HEAD_DIM, *arrays, out.numpy())
    return out


@jit
def _attention(
    begin: int,
    end: int,
    queries: ArrayF32,
    keys: ArrayF32,
    values: ArrayF32,
    distance_queries: ArrayF32,
    distance_keys: ArrayF32,
    out: ArrayF32,
) -> None:
    """The heads `begin` to `end`."""
    time, columns, distances = len(queries), padded_length(len(queries)), padded_length(len(distance_keys))
    size = columns * HEAD_DIM
    head_keys, head_values = aligned_zeros(size).view(np.float32), aligned_zeros(size).view(np.float32)
    head_distance_keys = aligned_zeros(distances * HEAD_DIM).view(np.float32)
    # A tile reads all of its MR rows.
    rows = (time + MR - 1) // MR * MR
    head_queries, head_distance_queries = np.zeros((rows, HEAD_DIM), np.float32), np.zeros((rows, HEAD_DIM), np.float32)
    for head in range(begin, end):
        start = head * HEAD_DIM
        for at in range(time):
            for lane in range(HEAD_DIM):
                head_queries[at, lane] = queries[at, start + lane]
                head_values[at * HEAD_DIM + lane] = values[at, start + lane]
        _pack_keys(keys, start, head_keys)
        if distances:
            head_distance_queries[:time] = distance_queries[:, start : start + HEAD_DIM]
            _pack_keys(distance_keys, start, head_distance_keys)
        _head_attention(head_queries, head_keys, head_values, head_distance_queries, head_distance_keys, out, start)


@jit
def _head_attention(
    queries: ArrayF32,
    keys: ArrayF32,
    values: ArrayF32,
    distance_queries: ArrayF32,
    distance_keys: ArrayF32,
    out: ArrayF32,
    start: int,
) -> None:
    """One head, whose output begins at the column `start`, MR queries at a time."""
    time, columns = len(out), len(keys) // HEAD_DIM
    scores = aligned_zeros(MR * columns).view(np.float32)
    distance_scores = aligned_zeros(MR * (columns + 2 * NR)).view(np.float32)
    sums = aligned_zeros(MR * HEAD_DIM).view(np.float32)
    normalizers = np.empty(MR, np.float32)
    for first in range(0, time, MR):
        place = queries.ctypes.data + first * HEAD_DIM * 4
        for at in range(0, columns, NR):
            panel, tile = keys.ctypes.data + at * HEAD_DIM * 4, scores.ctypes.data + at * 4
            tile_f32(place, HEAD_DIM * 4, panel, NR * 4, HEAD_DIM, tile, columns * 4)
        if len(distance_keys):
            _add_distance_scores(distance_queries, distance_keys, first, time, distance_scores, scores)
        for row in range(MR):
            scores[row * columns + time : (row + 1) * columns] = MASKED_SCORE
            total = exp2_f32(scores.ctypes.data + row * columns * 4, SOFTMAX_FACTOR, columns)
            normalizers[row] = np.float32(1) / total
        tile_f32(
            scores.ctypes.data, columns * 4, values.ctypes.data, HEAD_DIM * 4, time, sums.ctypes.data, HEAD_DIM * 4
        )
        for row in range(min(MR, time - first)):
            for lane in range(HEAD_DIM):
                out[first + row, start + lane] = sums[row * HEAD_DIM + lane] * normalizers[row]


@jit
def _add_distance_scores(
    queries: ArrayF32, keys: ArrayF32, first: int, time: int, distance_scores: ArrayF32, scores: ArrayF32
) -> None:
    """Add the scores of MR queries' distances; a row's first key is the one before that of the row above."""
    columns, stride = len(scores) // MR, len(distance_scores) // MR
    lowest = max(0, time - MR - first) // NR * NR
    place = queries.ctypes.data + first * HEAD_DIM * 4
    for at in range(lowest, 2 * time - 1 - first, NR):
        panel, tile = keys.ctypes.data + at * HEAD_DIM * 4, distance_scores.ctypes.data + (at - lowest) * 4
        tile_f32(place, HEAD_DIM * 4, panel, NR * 4, HEAD_DIM, tile, stride * 4)
    for row in range(min(MR, time - first)):
        column = time - 1 - first - row - lowest
        for at in range(time):
            scores[row * columns + at] += distance_scores[row * stride + column + at]


@jit
def _pack_keys(rows: ArrayF32, start: int, packed: ArrayF32) -> None:
    """Pack one head's rows into panels of NR positions: (time / NR, HEAD_DIM, NR)."""
    blocks_end = len(rows) // LANES * LANES
    for at in range(0, blocks_end, LANES):
        for lane in range(0, HEAD_DIM, LANES):
            block = rows.ctypes.data + at * rows.strides[0] + (start + lane) * 4
            out = packed.ctypes.data + _packed_index(at, lane) * 4
            transpose_block(block, rows.strides[0], out, KEY_LANE_BYTES)
    for at in range(blocks_end, len(rows)):
        for lane in range(HEAD_DIM):
            packed[_packed_index(at, lane)] = rows[at, start + lane]


@jit
def _packed_index(at: int, lane: int) -> int:
    return at // NR * NR * HEAD_DIM + at % NR + lane * NR
