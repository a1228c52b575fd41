"""Abbreviations of titles, streets and phrases."""

from __future__ import annotations

import pytest

from balancer.text.english import abbreviations
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Dr. Smith", "Doctor Smith"),
        ("Mr. Brown Jr. is here", "Mister Brown Junior is here"),
        ("St. Paul", "Saint Paul"),
        ("Main St.", "Main Street"),
        ("e.g. this", "for example, this"),
        ("vs. them", "versus them"),
        ("etc.", "etcetera."),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(abbreviations.RULES, text) == words


@pytest.mark.parametrize("text", ["It ended.", "Is it a dr?"])
def test_what_stays(text: str) -> None:
    assert apply(abbreviations.RULES, text) == text


@pytest.mark.parametrize(("text", "words"), [("No. 5", "number 5"), ("pp. 3-5", "pages 3-5"), ("Fig. 2", "Figure 2")])
def test_those_before_a_number(text: str, words: str) -> None:
    assert apply(abbreviations.BEFORE_NUMBERS, text) == words
