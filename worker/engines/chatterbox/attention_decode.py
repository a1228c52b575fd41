"""Attention of one new position of each of several sequences, in float32: most of a step of many sequences.

Keys lie lane by lane, the positions of a lane side by side, so that sixteen positions are scored at a time. Keys and
values of a prompt that sequences share come from memory once for all of them, head by head.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from worker.engines.chatterbox.compiled import compiled
from worker.engines.chatterbox.vectors.code import LANES
from worker.engines.chatterbox.vectors.powers import exponentials
from worker.engines.chatterbox.vectors.rows import column_products, weighted_rows
from worker.engines.chatterbox.vectors.tiles import TILE_COLUMNS

WIDTH = TILE_COLUMNS
"""Of a head, in all of the family."""
BLOCK = TILE_COLUMNS
"""Positions are scored so many at a time: keys are to have room for a multiple of that."""

FACTOR = np.float32(WIDTH**-0.5 * math.log2(math.e))


def attend_step(
    new: tuple[Tensor, Tensor, Tensor],
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    rows: Tensor,
    places: Tensor,
) -> Tensor:
    """What the new position of each of n sequences behind one prompt hears of those before and itself.

    `new` are queries, keys and values, (n, heads, WIDTH) each. Keys of `prompt` are (heads, WIDTH, padded) and values
    (heads, known, WIDTH); keys of `own` (rows, heads, WIDTH, length) and values (rows, heads, length, WIDTH), where the
    new position of sequence i becomes number places[i] of row rows[i]. All but the int64 `rows` and `places` are
    float32; `padded` and `length` are multiples of BLOCK. The answer is (n, heads * WIDTH). Raises ValueError for heads
    of another width.
    """
    queries = new[0]
    if queries.shape[2] != WIDTH:
        raise ValueError(f"attention is made for heads of {WIDTH} numbers, and these have {queries.shape[2]}")
    heard = torch.empty(len(queries), queries.shape[1] * WIDTH)
    arrays = (tensor.contiguous().numpy() for tensor in (*new, *prompt, *own, rows, places))
    _attend_step(*arrays, heard.numpy())
    return heard


@compiled
def _attend_step(queries, new_keys, new_values, known_keys, known_values, keys, values, rows, places, heard):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    known, padded, length = known_values.shape[1], known_keys.shape[2], keys.shape[3]
    room = np.empty(padded + length + 2 * BLOCK, np.float32)
    scores = room[(-room.ctypes.data) % 64 // 4 :]
    for head in range(queries.shape[1]):
        for sequence in range(len(rows)):
            query = queries.ctypes.data + (sequence * queries.shape[1] + head) * WIDTH * 4
            place = rows[sequence] * keys.shape[1] + head
            at = places[sequence]
            for lane in range(WIDTH):
                keys[rows[sequence], head, lane, at] = new_keys[sequence, head, lane]
                values[rows[sequence], head, at, lane] = new_values[sequence, head, lane]
            own = at + 1
            if known:
                prompt = known_keys.ctypes.data + head * WIDTH * padded * 4
                column_products(query, prompt, padded * 4, WIDTH, known, scores.ctypes.data)
            beside = keys.ctypes.data + place * WIDTH * length * 4
            # The first of its own overwrites what was computed past the prompt's last.
            column_products(query, beside, length * 4, WIDTH, own, scores.ctypes.data + known * 4)
            total = known + own
            for number in range(total, (total + LANES - 1) // LANES * LANES):
                scores[number] = np.float32(-3e38)
            share = np.float32(1) / exponentials(scores.ctypes.data, FACTOR, (total + LANES - 1) // LANES * LANES)
            out = heard.ctypes.data + (sequence * queries.shape[1] + head) * WIDTH * 4
            for number in range(head * WIDTH, (head + 1) * WIDTH):
                heard[sequence, number] = 0
            if known:
                weighted_rows(scores.ctypes.data, known_values.ctypes.data + head * known * WIDTH * 4, known, out)
            weighted_rows(scores.ctypes.data + known * 4, values.ctypes.data + place * length * WIDTH * 4, own, out)
            for number in range(head * WIDTH, (head + 1) * WIDTH):
                heard[sequence, number] *= share
