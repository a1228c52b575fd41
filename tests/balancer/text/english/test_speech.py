"""The English stages together."""

from __future__ import annotations

import pytest

from balancer.text.english.speech import spell_out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("On 5 May I paid $3.", "On the fifth of May I paid three dollars."),
        ("Dr. Lee (NASA) ran 5 km.", "Doctor Lee, Nasa, ran five kilometers."),
        ("One.\n\nTwo & 3.", "One.\n\nTwo and three."),
        ("", ""),
    ],
)
def test_a_text_in_words(text: str, words: str) -> None:
    assert spell_out(text) == words
