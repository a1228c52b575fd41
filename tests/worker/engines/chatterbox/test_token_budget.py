"""How many speech tokens a text may take: enough for slow speech, never so many that a worker hangs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.chatterbox.token_budget import MAX_TOKENS, TOKENS_PER_SECOND, token_budget

ENGLISH = (
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. It is easy to tell the "
    "depth of a well."
)
TOKENS_A_LETTER = TOKENS_PER_SECOND / 15
"""Of English read aloud at 15 letters a second."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def test_generous_for_english() -> None:
    for text in (ENGLISH[: ENGLISH.index(".") + 1], ENGLISH, "Yes."):
        assert 2 * TOKENS_A_LETTER * len(text) <= token_budget(text) < MAX_TOKENS


def test_no_worker_hangs_for_the_whole_limit_on_a_short_text() -> None:
    assert token_budget("Yes.") < MAX_TOKENS / 10


@pytest.mark.parametrize("text", ["", " ", "\n\t", "."])
def test_next_to_nothing_leaves_time_for_a_breath(text: str) -> None:
    assert TOKENS_PER_SECOND <= token_budget(text) <= 3 * TOKENS_PER_SECOND


@pytest.mark.parametrize("character", ["7", "٣", "你", "語", "か", "한", "€", "+", "😀", "²"])
def test_what_is_spoken_as_a_word_costs_more_than_a_letter(character: str) -> None:
    assert token_budget(character) >= token_budget("a") + TOKENS_PER_SECOND / 2


def test_a_long_number_read_out_digit_by_digit() -> None:
    spoken = "nine eight seven six five four three two one zero"
    assert token_budget("9876543210") >= 2 * TOKENS_A_LETTER * len(spoken)


def test_a_tag_has_time_for_its_sound() -> None:
    assert token_budget("Ha. [laugh]") >= token_budget("Ha.") + TOKENS_PER_SECOND


@given(text=texts)
def test_within_the_limit(text: str) -> None:
    assert 0 < token_budget(text) <= MAX_TOKENS


@given(text=texts, more=texts)
def test_more_text_never_has_less(text: str, more: str) -> None:
    assert token_budget(text + more) >= token_budget(text)


def test_the_limit_is_reached() -> None:
    assert token_budget("a" * 2000) == MAX_TOKENS == 1000
