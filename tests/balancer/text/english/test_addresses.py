"""Addresses of the web, e-mail, files; handles and hashtags."""

from __future__ import annotations

import pytest

from balancer.text.english import addresses
from balancer.text.english.rules import apply


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("See https://a.com/b.", "See a dot com slash B."),
        ("Mail me@example.org.", "Mail me at example dot org."),
        ("Open notes.txt now.", "Open notes dot T X T now."),
        ("@ada and #fun", "at ada and hashtag fun"),
        ("/usr/bin", "slash U S R slash bin"),
    ],
)
def test_the_words(text: str, words: str) -> None:
    assert apply(addresses.RULES, text) == words


@pytest.mark.parametrize("text", ["It ended.Then it began", "and/or"])
def test_what_stays(text: str) -> None:
    assert apply(addresses.RULES, text) == text


def test_a_name_is_spelled_where_it_is_no_word() -> None:
    assert addresses.spelled("PY") == "P Y"
    assert addresses.spoken_name("a-b.com") == "a dash B dot com"
