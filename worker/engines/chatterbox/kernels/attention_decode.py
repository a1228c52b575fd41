"""Attention of one new position of each of several sequences, in float32: most of a decoding step of many sequences.

Keys lie in blocks of KEY_BLOCK positions, (HEAD_DIM, KEY_BLOCK) each, so that 16 positions are scored at a time and a
block is read from end to end. The keys and values of the prefix that the sequences share are read from memory once for
all of them, head by head, and multiplied for MR sequences at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_tiles import HEAD_DIM, MASKED_SCORE, SOFTMAX_FACTOR, padded_length
from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI64, aligned_zeros, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.simd.gemm import NR, tile_f32
from worker.engines.chatterbox.kernels.simd.rows import accumulate_rows, vector_matrix_product
from worker.engines.chatterbox.kernels.simd.softmax import exp2_f32
from worker.engines.chatterbox.kernels.simd.targets import MR

KEY_BLOCK = NR
"""Positions of a block of keys."""


def attention_decode(
    new: tuple[Tensor, Tensor, Tensor],
    prefix: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    rows: Tensor,
    positions: Tensor,
) -> Tensor:
    """Attention of n sequences' new positions to the shared prefix, to the sequence's own positions and to themselves.

    `new` are queries, keys and values, (n, heads, HEAD_DIM) each. The keys of `prefix` are
    (heads, blocks, HEAD_DIM, KEY_BLOCK) and its values (heads, prefix length, HEAD_DIM). The keys of `own` are
    (rows, heads, blocks, HEAD_DIM, KEY_BLOCK) and its values (rows, heads, length, HEAD_DIM): the new key and value of
    sequence i are written to position positions[i] of row rows[i]. All are float32, but for the int64 `rows` and
    `positions`, (n,). Returns (n, heads * HEAD_DIM). Raises ValueError for heads of another width.
    """
    queries = new[0]
    if queries.shape[2] != HEAD_DIM:
        raise ValueError(f"attention supports heads of {HEAD_DIM} dimensions, and these have {queries.shape[2]}")
    out = torch.empty(len(queries), queries.shape[1] * HEAD_DIM)
    arrays = [tensor.contiguous().numpy() for tensor in (*new, *prefix, *own, rows, positions)]
    parallel_for(_attention, queries.shape[1], *arrays, out.numpy())
    return out


@jit
def _attention(  # noqa: PLR0917
    begin: int,
    end: int,
    queries: ArrayF32,
    new_keys: ArrayF32,
    new_values: ArrayF32,
    prefix_keys: ArrayF32,
    prefix_values: ArrayF32,
    keys: ArrayF32,
    values: ArrayF32,
    rows: ArrayI64,
    positions: ArrayI64,
    out: ArrayF32,
) -> None:
    """The heads `begin` to `end`: all sequences with the prefix, then each with its own positions."""
    prefix_length = prefix_values.shape[1]
    stride = (prefix_keys.shape[1] + keys.shape[2] + 1) * KEY_BLOCK
    # A tile reads and writes all of its MR rows.
    padded_rows = (len(rows) + MR - 1) // MR * MR
    scores = aligned_zeros(padded_rows * stride).view(np.float32)
    shape = padded_rows, HEAD_DIM
    head_queries, head_out = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for head in range(begin, end):
        head_queries[: len(rows)] = queries[:, head]
        for block in range(prefix_keys.shape[1]):
            _score_prefix_block(head_queries, prefix_keys[head, block], block, scores)
        for sequence in range(len(rows)):
            row, at = rows[sequence], positions[sequence]
            keys[row, head, at // KEY_BLOCK, :, at % KEY_BLOCK] = new_keys[sequence, head]
            values[row, head, at] = new_values[sequence, head]
            place = scores.ctypes.data + sequence * stride * 4
            # The first own score overwrites those computed past the prefix's last position.
            for block in range(at // KEY_BLOCK + 1):
                block_scores = place + (prefix_length + block * KEY_BLOCK) * 4
                query, block_keys = head_queries[sequence].ctypes.data, keys[row, head, block].ctypes.data
                vector_matrix_product(query, block_keys, KEY_BLOCK * 4, HEAD_DIM, KEY_BLOCK, block_scores)
            length = prefix_length + at + 1
            padded = padded_length(length)
            scores[sequence * stride + length : sequence * stride + padded] = MASKED_SCORE
            normalizer = np.float32(1) / exp2_f32(place, SOFTMAX_FACTOR, padded)
            for number in range(length):
                scores[sequence * stride + number] *= normalizer
        if prefix_length:
            _sum_prefix_values(scores, prefix_values[head], head_out)
        for sequence in range(len(rows)):
            row, count = rows[sequence], positions[sequence] + 1
            weights = scores.ctypes.data + (sequence * stride + prefix_length) * 4
            accumulate_rows(weights, values[row, head].ctypes.data, count, head_out[sequence].ctypes.data)
            out[sequence, head * HEAD_DIM : (head + 1) * HEAD_DIM] = head_out[sequence]
            head_out[sequence] = 0


@jit
def _score_prefix_block(queries: ArrayF32, keys: ArrayF32, block: int, scores: ArrayF32) -> None:
    """The scores of all sequences for one block of the prefix's keys."""
    stride = len(scores) // len(queries) * 4
    for first in range(0, len(queries), MR):
        out = scores.ctypes.data + first * stride + block * KEY_BLOCK * 4
        tile_f32(queries[first].ctypes.data, HEAD_DIM * 4, keys.ctypes.data, KEY_BLOCK * 4, HEAD_DIM, out, stride)


@jit
def _sum_prefix_values(weights: ArrayF32, values: ArrayF32, out: ArrayF32) -> None:
    """The prefix's share of all sequences' outputs: its values, weighted and summed."""
    stride = len(weights) // len(out) * 4
    for first in range(0, len(out), MR):
        place = weights.ctypes.data + first * stride
        row = out[first].ctypes.data
        tile_f32(place, stride, values.ctypes.data, HEAD_DIM * 4, len(values), row, HEAD_DIM * 4)
