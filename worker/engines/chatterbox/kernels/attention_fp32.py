"""Attention over all frames of an utterance in float32, a few queries at a time, whose scores never leave the cache.

For processors with AVX-512; PyTorch's own takes a third longer there, and is what other processors have.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_tiles import FACTOR, NEVER, WIDTH, whole_tiles
from worker.engines.chatterbox.kernels.jit import aligned, compiled, shared
from worker.engines.chatterbox.kernels.simd.emitter import LANES
from worker.engines.chatterbox.kernels.simd.gemm import TILE_COLUMNS, TILE_ROWS, tile_floats, turned_block
from worker.engines.chatterbox.kernels.simd.softmax import exponentials

ROW = TILE_COLUMNS * 4
"""Bytes from a lane of a tile to the next."""


def attention_float(
    queries: Tensor, keys: Tensor, values: Tensor, distances: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """What each position hears of all: all are float32 (time, heads * WIDTH).

    `distances` adds to each score what is owed to how far two positions are apart: other queries, and float32
    (2 * time - 1, heads * WIDTH), whose row n is what they meet at a distance of time - 1 - n.
    """
    heard = torch.empty(queries.shape)
    further = (queries, queries[:0]) if distances is None else distances
    arrays = [part.contiguous().numpy() for part in (queries, keys, values, *further)]
    shared(_attend, queries.shape[1] // WIDTH, *arrays, heard.numpy())
    return heard


@compiled
def _attend(begin, end, queries, keys, values, further, apart, heard):  # type: ignore[no-untyped-def]
    """Head by head, from `begin` to `end`."""
    time, columns, spans = len(queries), whole_tiles(len(queries)), whole_tiles(len(apart))
    its_keys, its_values = aligned(columns * WIDTH).view(np.float32), aligned(columns * WIDTH).view(np.float32)
    its_apart = aligned(spans * WIDTH).view(np.float32)
    # A tile reads all of its rows.
    rows = (time + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    its_queries, its_further = np.zeros((rows, WIDTH), np.float32), np.zeros((rows, WIDTH), np.float32)
    for head in range(begin, end):
        start = head * WIDTH
        for at in range(time):
            for lane in range(WIDTH):
                its_queries[at, lane] = queries[at, start + lane]
                its_values[at * WIDTH + lane] = values[at, start + lane]
        _pack(keys, start, its_keys)
        if spans:
            its_further[:time] = further[:, start : start + WIDTH]
            _pack(apart, start, its_apart)
        _hear(its_queries, its_keys, its_values, its_further, its_apart, heard, start)


@compiled
def _hear(queries, keys, values, further, apart, heard, start):  # type: ignore[no-untyped-def]
    """One head, TILE_ROWS queries at a time."""
    time, columns = len(heard), len(keys) // WIDTH
    scores = aligned(TILE_ROWS * columns).view(np.float32)
    room = aligned(TILE_ROWS * (columns + 2 * TILE_COLUMNS)).view(np.float32)
    part = aligned(TILE_ROWS * WIDTH).view(np.float32)
    shares = np.empty(TILE_ROWS, np.float32)
    for first in range(0, time, TILE_ROWS):
        place = queries.ctypes.data + first * WIDTH * 4
        for at in range(0, columns, TILE_COLUMNS):
            its, out = keys.ctypes.data + at * WIDTH * 4, scores.ctypes.data + at * 4
            tile_floats(place, WIDTH * 4, its, TILE_COLUMNS * 4, WIDTH, out, columns * 4)
        if len(apart):
            _add_distances(further, apart, first, time, room, scores)
        for row in range(TILE_ROWS):
            scores[row * columns + time : (row + 1) * columns] = NEVER
            shares[row] = np.float32(1) / exponentials(scores.ctypes.data + row * columns * 4, FACTOR, columns)
        tile_floats(scores.ctypes.data, columns * 4, values.ctypes.data, WIDTH * 4, time, part.ctypes.data, WIDTH * 4)
        for row in range(min(TILE_ROWS, time - first)):
            for lane in range(WIDTH):
                heard[first + row, start + lane] = part[row * WIDTH + lane] * shares[row]


@compiled
def _add_distances(further, apart, first, time, room, scores):  # type: ignore[no-untyped-def]
    """Those of TILE_ROWS queries: a row's first column is one before that of the row above."""
    columns, across = len(scores) // TILE_ROWS, len(room) // TILE_ROWS
    lowest = max(0, time - TILE_ROWS - first) // TILE_COLUMNS * TILE_COLUMNS
    place = further.ctypes.data + first * WIDTH * 4
    for at in range(lowest, 2 * time - 1 - first, TILE_COLUMNS):
        its, out = apart.ctypes.data + at * WIDTH * 4, room.ctypes.data + (at - lowest) * 4
        tile_floats(place, WIDTH * 4, its, TILE_COLUMNS * 4, WIDTH, out, across * 4)
    for row in range(min(TILE_ROWS, time - first)):
        column = time - 1 - first - row - lowest
        for at in range(time):
            scores[row * columns + at] += room[row * across + column + at]


@compiled
def _pack(rows, start, packed):  # type: ignore[no-untyped-def]
    """Those of a head in the order of tiles: TILE_COLUMNS positions of a lane side by side."""
    whole = len(rows) // LANES * LANES
    for at in range(0, whole, LANES):
        for lane in range(0, WIDTH, LANES):
            place = packed.ctypes.data + _place(at, lane) * 4
            turned_block(rows.ctypes.data + at * rows.strides[0] + (start + lane) * 4, rows.strides[0], place, ROW)
    for at in range(whole, len(rows)):
        for lane in range(WIDTH):
            packed[_place(at, lane)] = rows[at, start + lane]


@compiled
def _place(at, lane):  # type: ignore[no-untyped-def]
    return at // TILE_COLUMNS * TILE_COLUMNS * WIDTH + at % TILE_COLUMNS + lane * TILE_COLUMNS
