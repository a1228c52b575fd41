"""Quantities with units."""

from __future__ import annotations

import pytest

from balancer.text.english import units
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5km", "five kilometers"),
        ("5 km", "five kilometers"),
        ("1 kg", "one kilogram"),
        ("25°C", "twenty-five degrees Celsius"),
        ("60 km/h", "sixty kilometers per hour"),
        ("5'10\"", "five foot ten"),
        ("100 MB", "one hundred megabytes"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(units.RULES, text) == words


@pytest.mark.parametrize("text", ["kilometers", "5 men"])
def test_what_stays(text: str) -> None:
    assert apply(units.RULES, text) == text


def test_the_name_of_a_unit() -> None:
    assert units.name_of("km", singular=True) == "kilometer"
    assert units.name_of("km", singular=False) == "kilometers"
