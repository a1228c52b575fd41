"""Signs before numbers."""

from __future__ import annotations

import pytest

from balancer.text.english.signs import sign_words


@pytest.mark.parametrize(
    ("sign", "words"), [(None, ""), ("", ""), ("-", "minus "), ("+", "plus "), ("\u00b1", "plus or minus ")]
)
def test_the_words_have_a_space_behind_them(sign: str | None, words: str) -> None:
    assert sign_words(sign) == words
