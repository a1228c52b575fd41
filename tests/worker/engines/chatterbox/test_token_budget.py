"""Token budgets: enough for slow speech, and bounded for every text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.chatterbox.token_budget import MAX_TOKENS, TOKENS_PER_SECOND, min_tokens, token_budget

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
    assert token_budget(character) >= token_budget("") + 5 + TOKENS_PER_SECOND / 2


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
    assert token_budget(f"{text} {more}") >= token_budget(text)


def test_the_limit_is_reached() -> None:
    assert token_budget("a" * 2000) == MAX_TOKENS == 1000


SPOKEN_LETTER = TOKENS_PER_SECOND / 2
"""Tokens of a letter that is spelled, slowly: half a second."""


@pytest.mark.parametrize(
    ("text", "letters"),
    [("A B C D E F", 6), ("U.R.L.", 3), ("U R L", 3), ("W-L-A-N", 4), ("P D F's", 3), ("Plan B", 1), ("Б Г Д", 3)],
)
def test_spelled_letters_are_words(text: str, letters: int) -> None:
    assert token_budget(text) >= token_budget("") + SPOKEN_LETTER * letters


def test_letters_within_words_are_letters() -> None:
    for text in ("don't", "It's", "naïve", "nai\u0308ve", "נִקּוּד", "में"):
        assert token_budget(text) < token_budget("") + SPOKEN_LETTER * len(text), text


@pytest.mark.parametrize(
    ("text", "syllables"),
    [
        ("你好世界今天天气很好", 10),
        ("これはとてもながいぶんです", 13),
        ("ﾊﾝｶｸｶﾀｶﾅ", 8),
        ("그것은매우긴문장입니다", 11),
    ],
)
def test_texts_without_spaces_have_time_for_every_syllable(text: str, syllables: int) -> None:
    assert token_budget(text) >= token_budget("") + SPOKEN_LETTER * syllables


@pytest.mark.parametrize(
    ("text", "seconds"), [("مرحبا بالعالم كيف حالك اليوم", 3), ("שלום עולם מה שלומך היום", 2.5), ("नमस्ते आप कैसे हैं", 1.8)]
)
def test_scripts_that_leave_vowels_out_have_twice_the_time_of_slow_speech(text: str, seconds: float) -> None:
    assert token_budget(text) >= token_budget("") + 2 * TOKENS_PER_SECOND * seconds


# The fewest


@pytest.mark.parametrize("text", ["", " ", "…", "[laugh]", "[laugh] [cough]", "!?", "7"])
def test_a_text_without_letters_needs_one_token(text: str) -> None:
    assert min_tokens(text) == 1


@pytest.mark.parametrize(
    ("text", "fast"), [(ENGLISH, 25), ("你好世界今天天气很好", 8), ("これはとてもながいぶんです", 12)]
)
def test_fast_speech_takes_twice_the_fewest(text: str, fast: float) -> None:
    """`fast` is in letters, or syllables, per second."""
    letters = sum(map(str.isalpha, text))
    assert 1 < 2 * min_tokens(text) <= letters / fast * TOKENS_PER_SECOND


@given(text=texts)
def test_the_fewest_are_less_than_the_most(text: str) -> None:
    assert 1 <= min_tokens(text) < token_budget(text)
