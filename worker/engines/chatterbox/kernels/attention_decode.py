"""Attention of one new position of each of several sequences, in float32: most of a decoding step of many sequences.

Keys and values are kept in float32 or float16; what is in float16 takes half the time to read.

Keys lie in blocks of KEY_BLOCK positions, (HEAD_DIM, KEY_BLOCK) each, so that 16 positions are scored at a time and a
block is read from end to end. The keys and values of the prefix that the sequences share are read from memory once for
all of them, head by head, and multiplied for MR sequences at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_tiles import HEAD_DIM, MASKED_SCORE, SOFTMAX_FACTOR, padded_length
from worker.engines.chatterbox.kernels.jit import ArrayF32, ArrayI64, aligned_zeros, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.simd.gemm import NR, tile_f32
from worker.engines.chatterbox.kernels.simd.rows import (
    accumulate_rows,
    accumulate_rows_f16,
    narrow_f16,
    vector_matrix_product,
    vector_matrix_product_f16,
    widen_f16,
)
from worker.engines.chatterbox.kernels.simd.softmax import exp2_f32
from worker.engines.chatterbox.kernels.simd.targets import MR

KEY_BLOCK = NR
"""Positions of a block of keys."""
HALF_BYTES = 2
"""Bytes of a float16."""

CacheArray = ArrayF32 | npt.NDArray[np.int16]
"""Numbers of the cache: float32, or the bits of float16."""


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
    `positions`, (n,), and `prefix` and `own`, which are all float32 or all float16. Returns (n, heads * HEAD_DIM).
    Raises ValueError for heads of another width.
    """
    queries = new[0]
    if queries.shape[2] != HEAD_DIM:
        raise ValueError(f"attention supports heads of {HEAD_DIM} dimensions, and these have {queries.shape[2]}")
    out = torch.empty(len(queries), queries.shape[1] * HEAD_DIM)
    arrays = [_array(tensor) for tensor in (*new, *prefix, *own, rows, positions)]
    parallel_for(_attention, queries.shape[1], *arrays, out.numpy())
    return out


def _array(tensor: Tensor) -> Any:
    """A tensor as an array, of float16 as int16: Numba has no float16."""
    tensor = tensor.contiguous()
    return (tensor.view(torch.int16) if tensor.dtype is torch.float16 else tensor).numpy()


@jit
def _attention(  # noqa: PLR0917
    begin: int,
    end: int,
    queries: ArrayF32,
    new_keys: ArrayF32,
    new_values: ArrayF32,
    prefix_keys: CacheArray,
    prefix_values: CacheArray,
    keys: CacheArray,
    values: CacheArray,
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
    half = keys.itemsize == HALF_BYTES
    widened = aligned_zeros(max(prefix_length, KEY_BLOCK) * HEAD_DIM if half else 0).ctypes.data
    for head in range(begin, end):
        head_queries[: len(rows)] = queries[:, head]
        for block in range(prefix_keys.shape[1]):
            block_keys = _as_f32(half, prefix_keys[head, block].ctypes.data, KEY_BLOCK * HEAD_DIM, widened)
            _score_prefix_block(head_queries, block_keys, block, scores)
        for sequence in range(len(rows)):
            row, at = rows[sequence], positions[sequence]
            _write(half, new_keys[sequence, head], keys[row, head, at // KEY_BLOCK, :, at % KEY_BLOCK])
            _write(half, new_values[sequence, head], values[row, head, at])
            place = scores.ctypes.data + sequence * stride * 4
            # The first own score overwrites those computed past the prefix's last position.
            for block in range(at // KEY_BLOCK + 1):
                block_scores = place + (prefix_length + block * KEY_BLOCK) * 4
                query, block_keys = head_queries[sequence].ctypes.data, keys[row, head, block].ctypes.data
                if half:
                    row_bytes = KEY_BLOCK * HALF_BYTES
                    vector_matrix_product_f16(query, block_keys, row_bytes, HEAD_DIM, KEY_BLOCK, block_scores)
                else:
                    vector_matrix_product(query, block_keys, KEY_BLOCK * 4, HEAD_DIM, KEY_BLOCK, block_scores)
            length = prefix_length + at + 1
            padded = padded_length(length)
            scores[sequence * stride + length : sequence * stride + padded] = MASKED_SCORE
            normalizer = np.float32(1) / exp2_f32(place, SOFTMAX_FACTOR, padded)
            for number in range(length):
                scores[sequence * stride + number] *= normalizer
        if prefix_length:
            head_values = _as_f32(half, prefix_values[head].ctypes.data, prefix_length * HEAD_DIM, widened)
            _sum_prefix_values(scores, head_values, prefix_length, head_out)
        for sequence in range(len(rows)):
            row, count = rows[sequence], positions[sequence] + 1
            weights = scores.ctypes.data + (sequence * stride + prefix_length) * 4
            head_values, sequence_out = values[row, head].ctypes.data, head_out[sequence].ctypes.data
            if half:
                accumulate_rows_f16(weights, head_values, count, sequence_out)
            else:
                accumulate_rows(weights, head_values, count, sequence_out)
            out[sequence, head * HEAD_DIM : (head + 1) * HEAD_DIM] = head_out[sequence]
            head_out[sequence] = 0


@jit
def _as_f32(half: bool, stored: int, count: int, widened: int) -> int:
    """The address of `count` numbers in float32: where they are stored, or, if that is in float16, `widened`."""
    if not half:
        return stored
    widen_f16(stored, count, widened)
    return widened


@jit
def _write(half: bool, vector: ArrayF32, place: CacheArray) -> None:
    """Write HEAD_DIM float32 to a place in the cache."""
    if half:
        rounded = np.empty(HEAD_DIM, np.int16)
        narrow_f16(vector.ctypes.data, HEAD_DIM, rounded.ctypes.data)
        place[:] = rounded
    else:
        place[:] = vector


@jit
def _score_prefix_block(queries: ArrayF32, keys: int, block: int, scores: ArrayF32) -> None:
    """The scores of all sequences for one block of the prefix's keys, which are at that address in float32."""
    stride = len(scores) // len(queries) * 4
    for first in range(0, len(queries), MR):
        out = scores.ctypes.data + first * stride + block * KEY_BLOCK * 4
        tile_f32(queries[first].ctypes.data, HEAD_DIM * 4, keys, KEY_BLOCK * 4, HEAD_DIM, out, stride)


@jit
def _sum_prefix_values(weights: ArrayF32, values: int, count: int, out: ArrayF32) -> None:
    """The prefix's share of all outputs: its `count` values, at that address in float32, weighted and summed."""
    stride = len(weights) // len(out) * 4
    for first in range(0, len(out), MR):
        place = weights.ctypes.data + first * stride
        tile_f32(place, stride, values, HEAD_DIM * 4, count, out[first].ctypes.data, HEAD_DIM * 4)
