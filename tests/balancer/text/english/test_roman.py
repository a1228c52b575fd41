"""Roman numerals behind names and headings."""

from __future__ import annotations

import pytest

from balancer.text.english import roman
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("World War II", "World War two"),
        ("King Henry VIII", "King Henry the eighth"),
        ("Louis XIV", "Louis the fourteenth"),
        ("Chapter IV", "Chapter four"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(roman.RULES, text) == words


@pytest.mark.parametrize("text", ["I am", "MIX it", "a CD"])
def test_what_stays(text: str) -> None:
    assert apply(roman.RULES, text) == text


@pytest.mark.parametrize(
    ("numeral", "value"),
    [("XIV", 14), ("MMXX", 2020), ("IV", 4), ("IIII", None), ("IC", None), ("", None), ("A", None)],
)
def test_the_value_of_a_numeral(numeral: str, value: int | None) -> None:
    assert roman.roman(numeral) == value
