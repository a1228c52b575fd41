"""Amounts of money."""

from __future__ import annotations

import pytest

from balancer.text.english import money
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$5", "five dollars"),
        ("$1", "one dollar"),
        ("$19.99", "nineteen dollars and ninety-nine cents"),
        ("-$5", "minus five dollars"),
        ("20€", "twenty euros"),
        ("€20", "twenty euros"),
        ("£0.50", "fifty pence"),
        ("$3.5 million", "three point five million dollars"),
        ("$1,234.50", "one thousand two hundred thirty-four dollars and fifty cents"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(money.RULES, text) == words


@pytest.mark.parametrize("text", ["the $ sign", "5 people"])
def test_what_stays(text: str) -> None:
    assert apply(money.RULES, text) == text


def test_an_amount() -> None:
    assert money.amount("-", "2.50", None, "$") == "minus two dollars and fifty cents"
    assert money.amount(None, "3", " million", "\u20ac") == "three million euros"
