"""Symbols that are said, and punctuation."""

from __future__ import annotations

import pytest

from balancer.text.english import symbols
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("salt & pepper", "salt  and  pepper"),
        ("a @ b", "a  at  b"),
        ("and/or", "and or"),
        ("x ≥ y", "x  greater than or equal to  y"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(symbols.RULES, text) == words


@pytest.mark.parametrize(("text", "words"), [("C++ and C#", "C plus plus and C sharp"), ("5 + 3 = 8", "5 + 3 = 8")])
def test_symbols_that_belong_to_a_name_come_first(text: str, words: str) -> None:
    assert apply(symbols.BEFORE_NUMBERS, text) == words


@pytest.mark.parametrize(
    ("text", "punctuated"),
    [
        ("Wait \u2014 what", "Wait, what"),
        ("(a) b", "a, b"),
        ("Hi !", "Hi!"),
        ("a,, b;.", "a, b."),
        ("one\n\n...\n\ntwo", "one\n\ntwo"),
        ("a  \t b", "a b"),
    ],
)
def test_punctuation_is_what_engines_know(text: str, punctuated: str) -> None:
    assert symbols.punctuate(text) == punctuated
