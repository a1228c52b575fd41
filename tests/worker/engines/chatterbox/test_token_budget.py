"""Token budgets: enough for slow speech, and bounded for every text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.chatterbox.token_budget import MAX_TOKENS, TOKENS_PER_SECOND, token_budget

ENGLISH = (
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. It is easy to tell the "
    "depth of a well."
)
TOKENS_PER_LETTER = TOKENS_PER_SECOND / 15
"""Tokens per letter of English, read aloud at 15 letters per second."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def test_generous_for_english() -> None:
    for text in (ENGLISH[: ENGLISH.index(".") + 1], ENGLISH, "Yes."):
        assert 2 * TOKENS_PER_LETTER * len(text) <= token_budget(text) < MAX_TOKENS


def test_a_short_text_gets_a_small_part_of_the_limit() -> None:
    assert token_budget("Yes.") < MAX_TOKENS / 10


@pytest.mark.parametrize("text", ["", " ", "\n\t", "."])
def test_texts_without_letters_get_one_to_three_seconds(text: str) -> None:
    assert TOKENS_PER_SECOND <= token_budget(text) <= 3 * TOKENS_PER_SECOND


@pytest.mark.parametrize("character", ["7", "٣", "你", "語", "か", "한", "€", "+", "😀", "²"])
def test_characters_that_are_spoken_as_words_get_more_than_letters(character: str) -> None:
    assert token_budget(character) >= token_budget("a") + TOKENS_PER_SECOND / 2


def test_a_long_number_can_be_read_digit_by_digit() -> None:
    spoken = "nine eight seven six five four three two one zero"
    assert token_budget("9876543210") >= 2 * TOKENS_PER_LETTER * len(spoken)


def test_a_tag_has_time_for_its_sound() -> None:
    assert token_budget("Ha. [laugh]") >= token_budget("Ha.") + TOKENS_PER_SECOND


@given(text=texts)
def test_within_the_limit(text: str) -> None:
    assert 0 < token_budget(text) <= MAX_TOKENS


@given(text=texts, more=texts)
def test_a_longer_text_never_gets_less(text: str, more: str) -> None:
    assert token_budget(text + more) >= token_budget(text)


def test_the_limit_is_reached() -> None:
    assert token_budget("a" * 2000) == MAX_TOKENS == 1000
