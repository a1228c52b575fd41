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

from worker.engines.chatterbox.kernels.attention_tiles import whole_tiles
from worker.engines.chatterbox.kernels.jit import aligned, compiled, shared
from worker.engines.chatterbox.kernels.quantize import LEAST_NUMBER, MIDDLE, quantized_row
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import (
    TILE_COLUMNS,
    TILE_ROWS,
    tile_bytes,
    tile_bytes_from,
    tile_words,
    turned_block,
)
from worker.engines.chatterbox.kernels.simd.rows import interleaved_rows, largest
from worker.engines.chatterbox.kernels.simd.softmax import powers, scaled_scores

WEIGHT_BITS = np.float32(12)
"""The largest weight of a position is 2**12."""
_MOST_SUM = (1 << 31 - 12) - 1
MOST_VALUE = 511
"""Of values; less in an utterance of so many positions that their sum could pass 2**31."""

_UNSEEN_SCALE, _UNSEEN = np.float32(1e28), -(1 << 30)
"""Make scores of the columns that fill the last tile which weigh nothing, and are still numbers."""


def attention_int8(mixed: Tensor, heads: int) -> Tensor:
    """What each position hears of all: float32 (time, heads * width).

    `mixed` is float32 (time, 3 * heads * width): queries, keys and values side by side. A width is a multiple of 16, of
    at most 64.
    """
    time, width = mixed.shape[0], mixed.shape[1] // 3
    heard = torch.empty(time, width)
    factor = np.float32((width // heads) ** -0.5 * math.log2(math.e))
    most_value = np.float32(min(MOST_VALUE, _MOST_SUM // whole_tiles(time)))
    shared(_attend, heads, mixed.numpy(), heads, factor, most_value, heard.numpy())
    return heard


# Below, addresses stand for rows of arrays: float32 and int32 numbers take 4 bytes, words 2.


@compiled
def _attend(begin, end, mixed, heads, factor, most_value, heard):  # type: ignore[no-untyped-def]
    """Head by head, from `begin` to `end`."""
    time, width = mixed.shape[0], mixed.shape[1] // 3 // heads
    queries = np.zeros(((time + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS, width), np.uint8)
    query_scales = np.zeros(len(queries), np.float32)
    columns = whole_tiles(time)
    keys, values = aligned(columns * width // 4), aligned(columns * TILE_COLUMNS // 2)
    key_scales, middles = aligned(columns).view(np.float32), aligned(columns)
    key_scales[time:], middles[time:] = _UNSEEN_SCALE, _UNSEEN
    for head in range(begin, end):
        start = head * width
        for at in range(time):
            place = mixed.ctypes.data + at * mixed.strides[0] + start * 4
            query_scales[at] = factor * quantized_row(place, width, MIDDLE, queries.ctypes.data + at * width)
        _pack_keys(mixed, (heads + head) * width, width, keys, key_scales)
        _weigh_middles(keys, time, middles)
        worth = _pack_values(mixed, (2 * heads + head) * width, width, most_value, values)
        _hear(queries, query_scales, keys, key_scales, middles, values, worth, heard, start)


@compiled
def _pack_keys(mixed, start, width, keys, scales):  # type: ignore[no-untyped-def]
    """Signed bytes in the order of tiles."""
    time = len(mixed)
    mean, key = np.zeros(width, np.float32), np.empty(width, np.float32)
    for at in range(time):
        for lane in range(width):
            mean[lane] += mixed[at, start + lane]
    for lane in range(width):
        mean[lane] /= np.float32(time)
    # As numbers of four bytes: as many for each of LANES keys as a block that is turned has, or fewer.
    block = np.zeros((LANES, LANES), np.int32)
    turned = np.empty((LANES, LANES), np.int32)
    for at in range(time):
        for lane in range(width):
            key[lane] = mixed[at, start + lane] - mean[lane]
        of_block = at % LANES
        scales[at] = quantized_row(key.ctypes.data, width, np.int32(0), block.ctypes.data + of_block * LANES * 4)
        if of_block == LANES - 1 or at == time - 1:
            turned_block(block.ctypes.data, LANES * 4, turned.ctypes.data, LANES * 4)
            first = at - of_block
            place = first // TILE_COLUMNS * (TILE_COLUMNS * width // 4) + first % TILE_COLUMNS
            for number in range(width // 4):
                for lane in range(LANES):
                    keys[place + number * TILE_COLUMNS + lane] = turned[number, lane]


@compiled
def _weigh_middles(keys, time, middles):  # type: ignore[no-untyped-def]
    """What the sums of each key begin with, so that the middle of the queries' bytes adds nothing to them."""
    width = len(keys) * 4 // len(middles)
    rows = np.full((TILE_ROWS, width), MIDDLE, np.uint8)
    sums = np.empty((TILE_ROWS, TILE_COLUMNS), np.int32)
    for at in range(0, time, TILE_COLUMNS):
        place = keys.ctypes.data + at * width
        tile_bytes(rows.ctypes.data, width, place, TILE_COLUMNS * 4, width // 4, sums.ctypes.data, TILE_COLUMNS * 4)
        for number in range(min(TILE_COLUMNS, time - at)):
            middles[at + number] = -sums[0, number]


@compiled
def _pack_values(mixed, start, width, most_value, values):  # type: ignore[no-untyped-def]
    """Words of two positions side by side; what one of them stands for."""
    nothing = np.zeros(width, np.float32)
    size = LEAST_NUMBER
    for at in range(len(mixed)):
        size = max(size, largest(mixed.ctypes.data + at * mixed.strides[0] + start * 4, width))
    for at in range(0, len(mixed), 2):
        place = mixed.ctypes.data + at * mixed.strides[0] + start * 4
        after = place + mixed.strides[0] if at + 1 < len(mixed) else nothing.ctypes.data
        interleaved_rows(place, after, width, most_value / size, values.ctypes.data + at // 2 * TILE_COLUMNS * 4)
    return size / most_value


@compiled
def _hear(queries, query_scales, keys, key_scales, middles, values, worth, heard, start):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """One head, TILE_ROWS queries at a time, whose scores and weights stay in the core's first cache."""
    width, columns = queries.shape[1], len(middles)
    sums, scores = aligned(TILE_ROWS * columns), aligned(columns)
    weights = aligned(TILE_ROWS * columns // 2)
    totals = np.empty(TILE_ROWS, np.float32)
    sums_heard = np.empty((TILE_ROWS, TILE_COLUMNS), np.int32)
    for first in range(0, len(queries), TILE_ROWS):
        for at in range(0, columns, TILE_COLUMNS):
            tile_bytes_from(
                queries.ctypes.data + first * width,
                width,
                keys.ctypes.data + at * width,
                TILE_COLUMNS * 4,
                width // 4,
                sums.ctypes.data + at * 4,
                columns * 4,
                middles.ctypes.data + at * 4,
            )
        for row in range(TILE_ROWS):
            place = sums.ctypes.data + row * columns * 4
            most = scaled_scores(place, key_scales.ctypes.data, columns, scores.ctypes.data)
            out = weights.ctypes.data + row * columns * 2
            totals[row] = powers(scores.ctypes.data, most, query_scales[first + row], WEIGHT_BITS, columns, out)
        tile_words(
            weights.ctypes.data,
            columns * 2,
            values.ctypes.data,
            TILE_COLUMNS * 4,
            columns // 2,
            sums_heard.ctypes.data,
            TILE_COLUMNS * 4,
        )
        for row in range(min(TILE_ROWS, len(heard) - first)):
            share = worth / totals[row]
            for number in range(width):
                heard[first + row, start + number] = np.float32(sums_heard[row, number]) * share
