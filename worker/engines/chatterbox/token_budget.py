"""The most and the fewest speech tokens that a text may take, and how many it likely takes; pure.

A model that misses the end of its text would go on to upstream's limit of 1,000 tokens: 40 seconds of noise, for which
its slot stays occupied. One that ends after a few tokens has not said the text.
"""

from __future__ import annotations

import re
import unicodedata

TOKENS_PER_SECOND = 25
"""Speech tokens per second of audio: the rate of Chatterbox's speech tokenizer (S3, 25 Hz)."""

MAX_TOKENS = 1000
"""Upstream's limit, for which the models were made."""

_PAUSES = 2 * TOKENS_PER_SECOND
_LETTER = 4
"""Tokens per letter. Ordinary English takes 1.6 (15 letters per second); slow and expressive speech twice as many."""
_SYLLABLE = 8
"""Tokens per letter of a script that leaves vowels out, such as Arabic, Hebrew and Devanagari. Ordinary speech takes 3
to 4 (6 to 8 consonants with their vowels per second)."""
_WORD = 20
"""Tokens per character that is spoken as a word or syllable: a digit, a symbol, a Chinese or Japanese character, a
letter that stands alone (`U R L`, `U.R.L.`)."""

_FEWEST_PER_LETTER = 0.5
"""50 letters per second: twice as fast as the fastest speech."""
_FEWEST_PER_WIDE_LETTER = 1.0
"""25 Chinese or Japanese syllables per second: twice as fast as the fastest speech."""

_ORDINARY = 3
"""Ordinary speech takes so many times the fewest tokens: 17 letters, or 8 Chinese syllables, per second."""

_APOSTROPHES = "'\u2019"
_TAG = re.compile(r"\[[^\]]*\]")


def token_budget(text: str) -> int:
    """The most speech tokens for `text`: more than twice what slow speech takes, never over MAX_TOKENS."""
    neighbours = zip(" " + text, text, text[1:] + " ", strict=False)
    return min(MAX_TOKENS, _PAUSES + sum(_most_tokens(*three) for three in neighbours))


def min_tokens(text: str) -> int:
    """The fewest speech tokens with which `text` can have been said: far fewer than fast speech takes, at least 1.

    Punctuation, symbols and tags such as `[laugh]` count as nothing.
    """
    return max(1, int(sum(map(_fewest_tokens, _TAG.sub("", text)))))


def likely_tokens(text: str) -> int:
    """The speech tokens that ordinary, rather fast speech takes for `text`."""
    return _ORDINARY * min_tokens(text)


def _most_tokens(before: str, character: str, after: str) -> int:
    if character.isspace():
        return 0
    category = unicodedata.category(character)
    if character.isdigit() or category[0] == "S" or _is_wide(character):
        return _WORD
    if category[0] == "L" and not _in_word(before) and before not in _APOSTROPHES and not _in_word(after):
        return _WORD
    return _SYLLABLE if category == "Lo" else _LETTER


def _fewest_tokens(character: str) -> float:
    category = unicodedata.category(character)
    if category[0] != "L":
        return 0.0
    return _FEWEST_PER_WIDE_LETTER if category == "Lo" and _is_wide(character) else _FEWEST_PER_LETTER


def _is_wide(character: str) -> bool:
    """Whether it is a Chinese, Japanese or Korean character, in its full or its half width."""
    return unicodedata.east_asian_width(character) in "WFH"


def _in_word(character: str) -> bool:
    """Whether it is a letter, or the mark of one (a vowel sign, an accent, a joiner)."""
    return unicodedata.category(character)[0] in "LM" or character in "\u200c\u200d"
