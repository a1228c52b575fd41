"""Characters of a text, mended."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.text.characters import drop_controls, mend
from balancer.text.marks import MARKS


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("a\r\nb\x85c\u2028d", "a\nb\nc\nd"),
        ("caf\u00c3\u00a9", "caf\u00e9"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\uff28\uff45\uff4c\uff4c\uff4f", "Hello"),
        ("don\ufffdt", "don't"),
        ("don`t", "don't"),
        ("\u201cHi\u201d", '"Hi"'),
        ("``x''", '"x"'),
        ("\u0430\u0441t", "act"),
        ("\ufb01ne", "fine"),
        ("\u2460", "1. "),
        ("1\ufe0f\u20e3", "1. "),
        ("\u2167", "8"),
        ("soft\u00adhyphen", "softhyphen"),
        ("a\u0301", "\u00e1"),
        ("\u0663", "3"),
        ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d, \u4e16\u754c."),
        ("a\U000f0064b\ue000", "ab"),
    ],
)
def test_characters_are_mended(text: str, mended: str) -> None:
    assert mend(text) == mended


def test_an_ideographic_text_keeps_its_punctuation() -> None:
    assert mend("\u4f60\u597d\uff0c\u4e16\u754c\u3002", ideographic=True) == "\u4f60\u597d\uff0c\u4e16\u754c\u3002"


def test_controls_are_dropped_and_line_breaks_are_line_feeds() -> None:
    assert drop_controls("a\x07\x0bb\r\nc") == "a\nb\nc"


@given(st.text())
def test_nothing_that_is_not_said_is_left(text: str) -> None:
    mended = mend(text)
    assert unicodedata.is_normalized("NFC", mended)
    left = {character for character in mended if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")}
    assert left <= {"\n", "\t"}
    assert not any(MARKS[0] <= character <= MARKS[2] for character in mended)
