"""Texts that attackers send: of any length, each different from all others."""

from __future__ import annotations

import random
from itertools import count

CACHED_TEXT = "The words that everybody hears."
"""The text of the bystander, which is cached before an attack."""

_WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven", "old", "ships", "sail"),
    *("home", "across", "cold", "grey", "sea", "and", "nobody", "asks", "why"),
)
_numbers = count(1)


def long_text(characters: int, seed: int) -> str:
    """A text of about `characters`, at most; it depends on both arguments alone."""
    rng = random.Random(f"attack {seed}")
    text = f"Number {seed}."
    while len(text) < characters:
        text += f" {rng.choice(_WORDS)}{'.' if rng.random() < 0.1 else ''}"
    return text[:characters].strip()


def new_text() -> str:
    """A short text that this process has not used before."""
    return f"New words, number {next(_numbers)}, of run {_RUN}."


_RUN = random.SystemRandom().randrange(10**6)
"""Some attacks start the server anew, with the cache of before."""
