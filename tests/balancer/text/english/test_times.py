"""Times of the day, and durations."""

from __future__ import annotations

import pytest

from balancer.text.english import times
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("At 10:35 pm.", "At ten thirty-five P M."),
        ("At 7:00.", "At seven o'clock."),
        ("At 00:00", "At midnight"),
        ("5 am", "five A M"),
        ("7:05 a.m.", "seven oh five A M."),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(times.RULES, text) == words


@pytest.mark.parametrize("text", ["25:99", "I am", "3:1 odds"])
def test_what_stays(text: str) -> None:
    assert apply(times.RULES, text) == text


@pytest.mark.parametrize(
    ("hour", "minute", "words"),
    [(10, 35, "ten thirty-five"), (0, 0, "midnight"), (7, 5, "seven oh five"), (12, 0, "twelve o'clock")],
)
def test_a_clock(hour: int, minute: int, words: str) -> None:
    assert times.clock(hour, minute) == words
