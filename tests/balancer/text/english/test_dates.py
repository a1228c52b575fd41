"""Dates, decades and months."""

from __future__ import annotations

import pytest

from balancer.text.english import dates
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("On 12/25/2023.", "On December twenty-fifth, twenty twenty-three."),
        ("31/12/2020", "December thirty-first, twenty twenty"),
        ("On 2024-03-05.", "On March fifth, twenty twenty-four."),
        ("Jan. 5", "January fifth"),
        ("5 March 2020", "the fifth of March twenty twenty"),
        ("the 1990s", "the nineteen nineties"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(dates.RULES, text) == words


@pytest.mark.parametrize("text", ["99/99/2020", "May I?", "in March"])
def test_what_stays(text: str) -> None:
    assert apply(dates.RULES, text) == text


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ((5, 3, 2024), "March fifth, twenty twenty-four"),
        ((5, 3, None), "March fifth"),
        ((29, 2, None), "February twenty-ninth"),
        ((31, 2, None), None),
        ((1, 13, 2024), None),
        ((0, 1, 2024), None),
    ],
)
def test_only_days_that_exist_are_dates(date: tuple[int, int, int | None], words: str | None) -> None:
    assert dates.spoken_date(*date) == words
