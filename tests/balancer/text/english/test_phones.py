"""Telephone numbers, in groups of digits."""

from __future__ import annotations

import pytest

from balancer.text.english import phones
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Call 555-123-4567.", "Call five five five, one two three, four five six seven."),
        ("(555) 123-4567", "five five five, one two three, four five six seven"),
        ("+1 555 123 4567", "plus one five five five, one two three, four five six seven"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(phones.RULES, text) == words


@pytest.mark.parametrize("text", ["12-34", "1,234,567"])
def test_what_stays(text: str) -> None:
    assert apply(phones.RULES, text) == text
