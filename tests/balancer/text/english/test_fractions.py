"""Fractions, written with a stroke or as one character."""

from __future__ import annotations

import pytest

from balancer.text.english import fractions
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1/2 cup", "one half cup"),
        ("½ cup", "one half cup"),
        ("2 ½", "two and a half"),
        ("3/4", "three quarters"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(fractions.RULES, text) == words


@pytest.mark.parametrize("text", ["and/or", "1/2/3"])
def test_what_stays(text: str) -> None:
    assert apply(fractions.RULES, text) == text


@pytest.mark.parametrize(
    ("over", "under", "words"),
    [(1, 2, "one half"), (3, 4, "three quarters"), (1, 3, "one third"), (5, 8, "five eighths")],
)
def test_a_fraction(over: int, under: int, words: str) -> None:
    assert fractions.fraction(over, under) == words
