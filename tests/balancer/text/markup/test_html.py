"""HTML and SSML."""

from __future__ import annotations

import pytest

from balancer.text.marks import pause_mark
from balancer.text.markup.html import remove, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<b>c</b>", "ac"),
        ("<p>a</p>b", "\n\na\n\nb"),
        ("<script>x</script>y", "y"),
        ("a < b and c > d", "a < b and c > d"),
        ('<sub alias="World">W</sub>', " World "),
        ("<!-- x -->y", "y"),
        ("<li>a</li>", "\n- a\n"),
        ("List<int>", "List int "),
        ("`<b>`", "`<b>`"),
        ("<your name>", " your name "),
        ('<img alt="cat">', " cat "),
        ('Say<say-as interpret-as="characters">ABC</say-as>.', "Say A B C ."),
    ],
)
def test_what_becomes_of_a_text(text: str, expected: str) -> None:
    assert remove(text) == expected


def test_a_break_is_a_pause() -> None:
    assert remove('a<break time="1s"/>b') == f"a{pause_mark(1)}b"
    assert remove('a<break strength="strong"/>b') == f"a{pause_mark(0.8)}b"
    assert remove("a<break/>b") == f"a{pause_mark(0.5)}b"


@pytest.mark.parametrize(
    ("duration", "length"), [("800ms", 0.8), ("1.5s", 1.5), (".5S", 0.5), ("2", None), ("x", None), ("1h", None)]
)
def test_a_duration(duration: str, length: float | None) -> None:
    assert seconds(duration) == length
