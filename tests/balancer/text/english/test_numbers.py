"""Numbers that no other module has said."""

from __future__ import annotations

import pytest

from balancer.text.english import numbers
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,000", "one thousand"),
        ("1000000", "one million"),
        ("007", "zero zero seven"),
        ("3.14", "three point one four"),
        ("21st", "twenty-first"),
        ("5-7", "five to seven"),
        ("x2", "x two"),
        ("9e9", "nine times ten to the power of nine"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(numbers.RULES, text) == words


@pytest.mark.parametrize("text", ["one", "x y"])
def test_what_stays(text: str) -> None:
    assert apply(numbers.RULES, text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x > 5", "x greater than 5"),
        ("p < 0.05", "p less than 0.05"),
        ("3 >= 2", "3 greater than or equal to 2"),
    ],
)
def test_comparisons_leave_the_numbers(text: str, words: str) -> None:
    assert apply(numbers.COMPARISONS, text) == words
