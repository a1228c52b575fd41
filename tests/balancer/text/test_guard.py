"""The guard of replacements."""

from __future__ import annotations

import pytest

from balancer.text.guard import is_complete


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("5", "five"),
        ("0", "none"),
        ("5 and 6", "five and six"),
        ("-5", "minus five"),
        ("$5", "five dollars"),
        ("5%", "five percent"),
        ("May", "March"),
        ("5-6", "five to six"),
    ],
)
def test_complete_words(source: str, said: str) -> None:
    assert is_complete(source, said)


@pytest.mark.parametrize(
    ("source", "said"),
    [("5", "many"), ("5", "5"), ("5 6", "five"), ("-5", "five"), ("$5", "five"), ("\u20ac5", "five"), ("5%", "five")],
)
def test_words_that_leave_something_out(source: str, said: str) -> None:
    assert not is_complete(source, said)
