"""Words in capitals: acronyms, words, and letters."""

from __future__ import annotations

import pytest

from balancer.text.english import capitals
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NASA and GPU", "Nasa and G P U"),
        ("the USA", "the U S A"),
        ("OK", "Okay"),
        ("IT WAS A DARK NIGHT", "It was a dark night"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(capitals.RULES, text) == words


@pytest.mark.parametrize("text", ["I am Ada", "A cat"])
def test_what_stays(text: str) -> None:
    assert apply(capitals.RULES, text) == text
