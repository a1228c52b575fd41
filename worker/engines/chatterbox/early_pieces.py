"""The pieces of an utterance's audio that are handed out before the rest: where they end, and how they join."""

from __future__ import annotations

import numpy as np

from worker.contract import Utterance
from worker.engines.base import Samples
from worker.engines.chatterbox.token_budget import TOKENS_PER_SECOND, likely_tokens

MIN_REST_TOKENS = TOKENS_PER_SECOND
"""Tokens that are likely to follow a piece, at least: for less, making it would delay the end for nothing."""

PIECE_GROWTH = 4
"""Tokens up to the end of a further piece, by those up to the end of the piece before.

A piece costs the flow of all tokens so far once more. With 25 at first, a listener has a second to play while the next
75 are drawn, and three more while the rest is made.
"""

CROSSFADE_SAMPLES = 480
"""20 ms at 24 kHz, in which a piece, made a little further than it reaches, fades into what follows."""


def piece_ends(utterance: Utterance, budget: int, lookahead: int) -> list[int]:
    """Numbers of tokens at which a piece is made, `lookahead` included; none if the audio is made in one go.

    `budget` is the most tokens that the utterance may take.
    """
    ends: list[int] = []
    end = utterance.first_piece_tokens
    while end is not None and end + lookahead + MIN_REST_TOKENS <= min(budget, likely_tokens(utterance.text)):
        ends.append(end + lookahead)
        end = PIECE_GROWTH * end if utterance.further_pieces else None
    return ends


def crossfade(ending: Samples, beginning: Samples) -> Samples:
    """`beginning`, the first CROSSFADE_SAMPLES of which come out of those of `ending`."""
    count = min(CROSSFADE_SAMPLES, len(ending), len(beginning))
    weights = np.linspace(0, 1, count + 2, dtype=np.float32)[1:-1]
    joined = beginning.copy()
    joined[:count] = weights * beginning[:count] + (1 - weights) * ending[:count]
    return joined
