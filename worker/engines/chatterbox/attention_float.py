"""Attention over all frames of an utterance in float32, a few queries at a time, whose scores never leave the cache.

For processors with AVX-512; PyTorch's own takes a third longer there, and is what other processors have.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.compiled import aligned, compiled
from worker.engines.chatterbox.vector_code import LANES, TILE_COLUMNS, TILE_ROWS, exponentials, tile_floats

WIDTH = TILE_COLUMNS
"""Of a head."""
FACTOR = np.float32(WIDTH**-0.5 * math.log2(math.e))
NEVER = np.float32(-3e38)


def attention_float(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What each position hears of all: all are float32 (time, heads * WIDTH)."""
    heard = torch.empty(queries.shape)
    _attend(*(part.contiguous().numpy() for part in (queries, keys, values)), heard.numpy())
    return heard


@compiled
def _attend(queries, keys, values, heard):  # type: ignore[no-untyped-def]
    """Head by head."""
    time = len(queries)
    columns = (time + TILE_COLUMNS - 1) // TILE_COLUMNS * TILE_COLUMNS
    its_keys, its_values = aligned(columns * WIDTH).view(np.float32), aligned(columns * WIDTH).view(np.float32)
    # A tile reads all of its rows.
    its_queries = np.zeros(((time + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS, WIDTH), np.float32)
    for head in range(queries.shape[1] // WIDTH):
        start = head * WIDTH
        for at in range(time):
            for lane in range(WIDTH):
                its_queries[at, lane] = queries[at, start + lane]
        _pack(keys, values, start, its_keys, its_values)
        _hear(its_queries, its_keys, its_values, columns, heard, start)


@compiled
def _hear(queries, keys, values, columns, heard, start):  # type: ignore[no-untyped-def]
    """One head, TILE_ROWS queries at a time."""
    time = len(heard)
    scored = (time + LANES - 1) // LANES * LANES
    scores = aligned(TILE_ROWS * columns).view(np.float32)
    part = aligned(TILE_ROWS * WIDTH).view(np.float32)
    shares = np.empty(TILE_ROWS, np.float32)
    for first in range(0, time, TILE_ROWS):
        place = queries.ctypes.data + first * WIDTH * 4
        for at in range(0, columns, TILE_COLUMNS):
            its, out = keys.ctypes.data + at * WIDTH * 4, scores.ctypes.data + at * 4
            tile_floats(place, WIDTH * 4, its, TILE_COLUMNS * 4, WIDTH, out, columns * 4)
        for row in range(TILE_ROWS):
            scores[row * columns + time : row * columns + scored] = NEVER
            shares[row] = np.float32(1) / exponentials(scores.ctypes.data + row * columns * 4, FACTOR, scored)
        tile_floats(scores.ctypes.data, columns * 4, values.ctypes.data, WIDTH * 4, time, part.ctypes.data, WIDTH * 4)
        for row in range(min(TILE_ROWS, time - first)):
            for lane in range(WIDTH):
                heard[first + row, start + lane] = part[row * WIDTH + lane] * shares[row]


@compiled
def _pack(keys, values, start, packed_keys, packed_values):  # type: ignore[no-untyped-def]
    """Those of a head: keys in the order of tiles, TILE_COLUMNS positions of a lane side by side; values in a row."""
    for at in range(len(keys)):
        place = at // TILE_COLUMNS * TILE_COLUMNS * WIDTH + at % TILE_COLUMNS
        for lane in range(WIDTH):
            packed_keys[place + lane * TILE_COLUMNS] = keys[at, start + lane]
            packed_values[at * WIDTH + lane] = values[at, start + lane]
