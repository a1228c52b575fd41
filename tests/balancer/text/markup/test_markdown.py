"""Markdown."""

from __future__ import annotations

import pytest

from balancer.text.markup.markdown import render


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("# Title\n\ntext", "Title.\n\ntext"),
        ("**b** and *i*", "b and i"),
        ("- a\n- b", "a.\nb."),
        ("1. a\n2. b", "1. a.\n2. b."),
        ("[x](y)", "x"),
        ("![a](b)", "a"),
        ("|a|b|\n|-|-|\n|1|2|", "a, b.\n1, 2."),
        ("```\ncode\n```", "code."),
        ("> q", "q"),
        ("5*3", "5*3"),
        ("a_b_c", "a_b_c"),
        ("==hi==", "hi"),
        ("---\ntitle: x\n---\nBody", "Body"),
        ("$x^2$", "x^2"),
        ("- [x] done", "done."),
    ],
)
def test_what_becomes_of_a_text(text: str, expected: str) -> None:
    assert render(text) == expected
