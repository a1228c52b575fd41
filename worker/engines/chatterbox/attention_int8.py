"""Attention over all frames of an utterance in whole numbers: scores from bytes, what is heard from words of 16 bits.

Queries and keys have a scale for each position. Keys are taken less their mean, which no softmax sees, so that what all
keys have in common costs no precision (as SageAttention does, arXiv 2410.02367). Weights have 12 bits and values 10,
for a softmax has a long tail that bytes would lose. For processors with AVX-512 VNNI.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.compiled import compiled
from worker.engines.chatterbox.rows_int8 import MIDDLE, quantized_row
from worker.engines.chatterbox.vector_code import (
    TILE_COLUMNS,
    TILE_ROWS,
    interleaved_rows,
    powers,
    scaled_scores,
    tile_bytes,
    tile_words,
)

WEIGHT_BITS = np.float32(12)
"""The largest weight of a position is 2**12."""
_MOST_SUM = (1 << 31 - 12) - 1
MOST_VALUE = 511
"""Of values; less in an utterance of so many positions that their sum could pass 2**31."""

_UNSEEN_SCALE, _UNSEEN_LESS = np.float32(1e30), 1 << 30
"""Make scores of minus infinity of the columns that fill the last tile."""


def attention_int8(mixed: Tensor, heads: int) -> Tensor:
    """What each position hears of all: float32 (time, heads * width).

    `mixed` is float32 (time, 3 * heads * width): queries, keys, values side by side; its keys are changed. A width is a
    multiple of 16, of at most 64.
    """
    time, width = mixed.shape[0], mixed.shape[1] // 3
    keys, values = mixed[:, width : 2 * width], mixed[:, 2 * width :]
    keys -= keys.mean(0)
    largest = values.abs().amax(0).view(heads, -1).amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    heard = torch.empty(time, width)
    factor = np.float32((width // heads) ** -0.5 * math.log2(math.e))
    most = min(MOST_VALUE, _MOST_SUM // _columns(time))
    _attend(mixed.numpy(), (most / largest).numpy(), factor, heard.numpy())
    return heard


# Below, addresses stand for rows of arrays: float32 and int32 numbers take 4 bytes, words 2.


@compiled
def _columns(time):  # type: ignore[no-untyped-def]
    """Positions with those that fill the last tile."""
    return (time + TILE_COLUMNS - 1) // TILE_COLUMNS * TILE_COLUMNS


@compiled
def _attend(mixed, value_scales, factor, heard):  # type: ignore[no-untyped-def]
    """Head by head."""
    heads = len(value_scales)
    time, width = mixed.shape[0], mixed.shape[1] // 3 // heads
    queries = np.zeros(((time + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS, width), np.uint8)
    query_scales = np.zeros(len(queries), np.float32)
    columns = _columns(time)
    keys, values = _aligned(columns * width // 4), _aligned(columns * TILE_COLUMNS // 2)
    key_scales, less = _aligned(columns).view(np.float32), _aligned(columns)
    key_scales[time:], less[time:] = _UNSEEN_SCALE, _UNSEEN_LESS
    for head in range(heads):
        query = mixed.ctypes.data + head * width * 4
        key, value = query + heads * width * 4, query + 2 * heads * width * 4
        for at in range(time):
            place = query + at * mixed.strides[0]
            query_scales[at] = factor * quantized_row(place, width, MIDDLE, queries.ctypes.data + at * width)
        _pack_keys(key, mixed.strides[0], time, width, keys, key_scales, less)
        _pack_values(value, mixed.strides[0], time, width, value_scales[head], values)
        _hear(queries, query_scales, keys, key_scales, less, values, value_scales[head], heard, head * width)


@compiled
def _aligned(count):  # type: ignore[no-untyped-def]
    """Zeros from a multiple of 64 bytes on: no vector of 512 bits then lies in two lines of the cache."""
    room = np.zeros(count + 16, np.int32)
    start = (-room.ctypes.data) % 64 // 4
    return room[start : start + count]


@compiled
def _pack_keys(address, row_bytes, time, width, keys, scales, less):  # type: ignore[no-untyped-def]
    """Signed bytes in the order of tiles, and how much the middle of the queries' bytes adds to a key's sums."""
    row = np.empty(width, np.uint8)
    fours = row.view(np.int32)
    for at in range(time):
        scales[at] = quantized_row(address + at * row_bytes, width, np.int32(0), row.ctypes.data)
        place = at // TILE_COLUMNS * (TILE_COLUMNS * width // 4) + at % TILE_COLUMNS
        for number in range(width // 4):
            keys[place + number * TILE_COLUMNS] = fours[number]
    middles = np.full((TILE_ROWS, width), MIDDLE, np.uint8)
    sums = np.empty((TILE_ROWS, TILE_COLUMNS), np.int32)
    for at in range(0, time, TILE_COLUMNS):
        place = keys.ctypes.data + at * width
        tile_bytes(middles.ctypes.data, width, place, TILE_COLUMNS * 4, width // 4, sums.ctypes.data)
        for number in range(min(TILE_COLUMNS, time - at)):
            less[at + number] = sums[0, number]


@compiled
def _pack_values(address, row_bytes, time, width, scale, values):  # type: ignore[no-untyped-def]
    """Words of two positions side by side."""
    nothing = np.zeros(width, np.float32)
    for at in range(0, time, 2):
        place = address + at * row_bytes
        after = place + row_bytes if at + 1 < time else nothing.ctypes.data
        interleaved_rows(place, after, width, scale, values.ctypes.data + at // 2 * TILE_COLUMNS * 4)


@compiled
def _hear(queries, query_scales, keys, key_scales, less, values, value_scale, heard, column):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """One head, TILE_ROWS queries at a time, whose scores and weights stay in the core's first cache."""
    width, columns = queries.shape[1], len(less)
    sums, scores = _aligned(TILE_ROWS * columns), _aligned(columns)
    weights = _aligned(TILE_ROWS * columns // 2)
    totals = np.empty(TILE_ROWS, np.float32)
    sums_heard = np.empty((TILE_ROWS, TILE_COLUMNS), np.int32)
    for first in range(0, len(queries), TILE_ROWS):
        for at in range(0, columns, TILE_COLUMNS):
            tile_bytes(
                queries.ctypes.data + first * width,
                width,
                keys.ctypes.data + at * width,
                TILE_COLUMNS * 4,
                width // 4,
                sums.ctypes.data + at * TILE_ROWS * 4,
            )
        for row in range(TILE_ROWS):
            most = scaled_scores(
                sums.ctypes.data + row * TILE_COLUMNS * 4,
                less.ctypes.data,
                key_scales.ctypes.data,
                query_scales[first + row],
                columns,
                scores.ctypes.data,
            )
            out = weights.ctypes.data + row * columns * 2
            totals[row] = powers(scores.ctypes.data, most, WEIGHT_BITS, columns, out)
        tile_words(
            weights.ctypes.data,
            columns * 2,
            values.ctypes.data,
            TILE_COLUMNS * 4,
            columns // 2,
            sums_heard.ctypes.data,
        )
        for row in range(min(TILE_ROWS, len(heard) - first)):
            share = np.float32(1) / (totals[row] * value_scale)
            for number in range(width):
                heard[first + row, column + number] = np.float32(sums_heard[row, number]) * share
