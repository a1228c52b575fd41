from __future__ import annotations

import pytest

from worker.engines.chatterbox.precision_check.word_errors import WordErrors, total_word_errors

EXPECTED = ["the", "birds", "have", "flown"]


@pytest.mark.parametrize(
    ("transcript", "errors"),
    [
        ("the birds have flown", 0),
        ("the bird have flown", 1),
        ("the birds flown", 1),
        ("so the birds have now flown", 2),
        ("", 4),
    ],
)
def test_substituted_deleted_and_inserted_words_count(transcript: str, errors: int) -> None:
    assert WordErrors.count(EXPECTED, transcript) == WordErrors(errors=errors, words=4)


def test_the_rate_is_of_the_expected_words() -> None:
    assert WordErrors(errors=6, words=15).rate == pytest.approx(0.4)


def test_errors_of_several_texts() -> None:
    one, other, third = (WordErrors(errors=errors, words=words) for errors, words in ((1, 2), (0, 8), (5, 5)))
    assert total_word_errors([]) is None
    assert total_word_errors([one]) == one
    assert total_word_errors([one, other, third]) == WordErrors(errors=6, words=15)
