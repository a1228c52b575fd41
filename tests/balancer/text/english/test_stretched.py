"""Stretched words and laughter."""

from __future__ import annotations

import pytest

from balancer.text.english import stretched
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nooo way", "no way"),
        ("soooo good", "so good"),
        ("Hahaha yes", "Ha ha ha yes"),
        ("Hmmm", "Hmm"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(stretched.RULES, text) == words


@pytest.mark.parametrize("text", ["a book", "too cool", "keeping"])
def test_what_stays(text: str) -> None:
    assert apply(stretched.RULES, text) == text
