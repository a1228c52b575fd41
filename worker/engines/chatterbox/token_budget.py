"""The most speech tokens that a text may take; pure.

A model that misses the end of its text would go on to upstream's limit of 1,000 tokens: 40 seconds of noise, for which
its slot stays occupied.
"""

from __future__ import annotations

import unicodedata

TOKENS_PER_SECOND = 25
"""Speech tokens per second of audio: the rate of Chatterbox's speech tokenizer (S3, 25 Hz)."""

MAX_TOKENS = 1000
"""Upstream's limit, for which the models were made."""

_PAUSES = 2 * TOKENS_PER_SECOND
_LETTER = 4
"""Tokens per letter. Ordinary English takes 1.6 (15 letters per second); slow and expressive speech twice as many."""
_WORD = 20
"""Tokens per character that is spoken as a word or syllable: a digit, a symbol, a Chinese or Japanese character."""


def token_budget(text: str) -> int:
    """The most speech tokens for `text`: more than twice what slow speech takes, never over MAX_TOKENS."""
    return min(MAX_TOKENS, _PAUSES + sum(map(_tokens, text)))


def _tokens(character: str) -> int:
    if character.isspace():
        return 0
    spoken = character.isdigit() or unicodedata.category(character)[0] == "S"
    wide = unicodedata.east_asian_width(character) in "WF"
    return _WORD if spoken or wide else _LETTER
