"""Numbers in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from num2words import num2words

from balancer.text.english import cardinals


@given(st.integers(0, 10**12))
def test_cardinals_are_those_of_a_library(number: int) -> None:
    library = num2words(number).replace(" and ", " ").replace(",", "")
    assert cardinals.cardinal(number).replace(",", "") == library


@pytest.mark.parametrize(("number", "words"), [(1, "first"), (21, "twenty-first"), (100, "one hundredth")])
def test_ordinals(number: int, words: str) -> None:
    assert cardinals.ordinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1908, "nineteen oh eight"),
        (1900, "nineteen hundred"),
        (2000, "two thousand"),
        (2005, "two thousand five"),
        (2024, "twenty twenty-four"),
    ],
)
def test_years(number: int, words: str) -> None:
    assert cardinals.year(number) == words


def test_digits_and_pairs() -> None:
    assert cardinals.digit_by_digit("007") == "zero zero seven"
    assert (cardinals.pair(3), cardinals.pair(35)) == ("oh three", "thirty-five")


@pytest.mark.parametrize(("digits", "words"), [("007", "zero zero seven"), ("1035", "one thousand thirty-five")])
def test_an_integer_with_leading_zeros_is_said_digit_by_digit(digits: str, words: str) -> None:
    assert cardinals.integer(digits) == words


def test_a_number_with_its_marks() -> None:
    assert cardinals.parts("1,234.50") == ("1234", "50")
    assert cardinals.number("1,234.50") == "one thousand two hundred thirty-four point five zero"


def test_one_alone_is_singular() -> None:
    assert [cardinals.is_one(written) for written in ("1", "1.0", "2", "11")] == [True, False, False, False]
