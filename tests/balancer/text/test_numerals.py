"""Plain numbers in other languages."""

from __future__ import annotations

import pytest

from balancer.text.numerals import LANGUAGES, spell_out


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("de", "5 x", "f\u00fcnf x"),
        ("de", "-3", "minus drei"),
        ("de", "1998", "neunzehnhundertachtundneunzig"),
        ("fr", "21 chats", "vingt et un chats"),
        ("fr", "1.234,5", "mille deux cent trente-quatre virgule cinq"),
        ("sw", "5", "5"),
    ],
)
def test_plain_numbers_are_words(language: str, text: str, words: str) -> None:
    assert spell_out(text, language) == words


@pytest.mark.parametrize("text", ["007", "2024-03-05", "12:30", "5.5", "1/2", "x5", "9" * 13])
@pytest.mark.parametrize("language", LANGUAGES)
def test_other_numbers_stay(language: str, text: str) -> None:
    assert spell_out(text, language) == text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_words(language: str) -> None:
    assert not any(character.isdigit() for character in spell_out("21", language))
