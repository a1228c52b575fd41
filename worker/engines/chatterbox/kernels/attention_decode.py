"""Attention of one new position of each of several sequences, in float32: most of a step of many sequences.

Keys lie in blocks of positions, lane by lane, the positions of a lane side by side, so that sixteen are scored at a
time, and a block is read from end to end. Keys and values of a prompt that sequences share come from memory once for
all of them, head by head, and are multiplied for several sequences at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_tiles import FACTOR, NEVER, WIDTH, whole_tiles
from worker.engines.chatterbox.kernels.jit import aligned, compiled, shared
from worker.engines.chatterbox.kernels.simd.gemm import TILE_COLUMNS, TILE_ROWS, tile_floats
from worker.engines.chatterbox.kernels.simd.rows import column_products, weighted_rows
from worker.engines.chatterbox.kernels.simd.softmax import exponentials

BLOCK = TILE_COLUMNS
"""Positions of a block of keys."""


def attend_step(
    new: tuple[Tensor, Tensor, Tensor],
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    rows: Tensor,
    places: Tensor,
) -> Tensor:
    """What the new position of each of n sequences behind one prompt hears of those before and itself.

    `new` are queries, keys and values, (n, heads, WIDTH) each. Keys of `prompt` are (heads, blocks, WIDTH, BLOCK) and
    values (heads, known, WIDTH); keys of `own` (rows, heads, blocks, WIDTH, BLOCK) and values (rows, heads, length,
    WIDTH), where the new position of sequence i becomes number places[i] of row rows[i]. All but the int64 `rows` and
    `places` are float32. The answer is (n, heads * WIDTH). Raises ValueError for heads of another width.
    """
    queries = new[0]
    if queries.shape[2] != WIDTH:
        raise ValueError(f"attention is made for heads of {WIDTH} numbers, and these have {queries.shape[2]}")
    heard = torch.empty(len(queries), queries.shape[1] * WIDTH)
    arrays = [tensor.contiguous().numpy() for tensor in (*new, *prompt, *own, rows, places)]
    shared(_attend_step, queries.shape[1], *arrays, heard.numpy())
    return heard


@compiled
def _attend_step(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    begin, end, queries, new_keys, new_values, known_keys, known_values, keys, values, rows, places, heard
):
    """Head by head, from `begin` to `end`: all sequences with the prompt, then each with its own positions."""
    known = known_values.shape[1]
    across = (known_keys.shape[1] + keys.shape[2] + 1) * BLOCK
    # A tile has all of its rows.
    tiled = (len(rows) + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    scores = aligned(tiled * across).view(np.float32)
    its_queries, part = np.zeros((tiled, WIDTH), np.float32), np.zeros((tiled, WIDTH), np.float32)
    for head in range(begin, end):
        its_queries[: len(rows)] = queries[:, head]
        for block in range(known_keys.shape[1]):
            _score_block(its_queries, known_keys[head, block], block, scores)
        for sequence in range(len(rows)):
            row, at = rows[sequence], places[sequence]
            keys[row, head, at // BLOCK, :, at % BLOCK] = new_keys[sequence, head]
            values[row, head, at] = new_values[sequence, head]
            place = scores.ctypes.data + sequence * across * 4
            # The first of its own overwrites what was computed past the prompt's last.
            for block in range(at // BLOCK + 1):
                out = place + (known + block * BLOCK) * 4
                its = keys[row, head, block].ctypes.data
                column_products(its_queries[sequence].ctypes.data, its, BLOCK * 4, WIDTH, BLOCK, out)
            total = known + at + 1
            padded = whole_tiles(total)
            scores[sequence * across + total : sequence * across + padded] = NEVER
            shares = np.float32(1) / exponentials(place, FACTOR, padded)
            for number in range(total):
                scores[sequence * across + number] *= shares
        if known:
            _weigh_rows(scores, known_values[head], part)
        for sequence in range(len(rows)):
            row, count = rows[sequence], places[sequence] + 1
            place, its = scores.ctypes.data + (sequence * across + known) * 4, values[row, head].ctypes.data
            weighted_rows(place, its, count, part[sequence].ctypes.data)
            heard[sequence, head * WIDTH : (head + 1) * WIDTH] = part[sequence]
            part[sequence] = 0


@compiled
def _score_block(queries, keys, block, scores):  # type: ignore[no-untyped-def]
    """Those of a prompt's block for all sequences."""
    across = len(scores) // len(queries) * 4
    for first in range(0, len(queries), TILE_ROWS):
        out = scores.ctypes.data + first * across + block * BLOCK * 4
        tile_floats(queries[first].ctypes.data, WIDTH * 4, keys.ctypes.data, BLOCK * 4, WIDTH, out, across)


@compiled
def _weigh_rows(scores, values, heard):  # type: ignore[no-untyped-def]
    """What all sequences hear of a prompt."""
    across = len(scores) // len(heard) * 4
    for first in range(0, len(heard), TILE_ROWS):
        place = scores.ctypes.data + first * across
        out = heard[first].ctypes.data
        tile_floats(place, across, values.ctypes.data, WIDTH * 4, len(values), out, WIDTH * 4)
