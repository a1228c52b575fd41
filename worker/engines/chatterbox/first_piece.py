"""The first piece of an utterance's audio, handed out before the rest: whether there is one, and how the two join."""

from __future__ import annotations

import numpy as np

from worker.contract import Utterance
from worker.engines.base import Samples
from worker.engines.chatterbox.token_budget import TOKENS_PER_SECOND, likely_tokens

MIN_REST_TOKENS = TOKENS_PER_SECOND
"""Tokens that are likely to follow a first piece, at least: for less, making it would delay the end for nothing."""

CROSSFADE_SAMPLES = 480
"""20 ms at 24 kHz, in which the first piece, made a little further than it reaches, fades into the rest."""


def tokens_of_first_piece(utterance: Utterance, budget: int, lookahead: int) -> int | None:
    """Tokens after which the first piece is made, `lookahead` included; None: the audio is made in one go.

    `budget` is the most tokens that the utterance may take.
    """
    if utterance.first_piece_tokens is None:
        return None
    tokens = utterance.first_piece_tokens + lookahead
    return tokens if tokens + MIN_REST_TOKENS <= min(budget, likely_tokens(utterance.text)) else None


def crossfade(ending: Samples, beginning: Samples) -> Samples:
    """`beginning`, the first CROSSFADE_SAMPLES of which come out of those of `ending`."""
    count = min(CROSSFADE_SAMPLES, len(ending), len(beginning))
    weights = np.linspace(0, 1, count + 2, dtype=np.float32)[1:-1]
    joined = beginning.copy()
    joined[:count] = weights * beginning[:count] + (1 - weights) * ending[:count]
    return joined
