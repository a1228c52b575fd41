"""Formulas of LaTeX."""

from __future__ import annotations

import pytest

from balancer.text.markup.maths import FORMULA, spoken


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\frac{a}{b}", "a over b"),
        ("\\sqrt{2}", "square root of 2"),
        ("x_{1}", "x 1"),
        ("x^{2}", "x^2"),
        ("a \\times b", "a \xd7 b"),
        ("ab", "a b"),
        ("\\text{if} x", "if x"),
    ],
)
def test_what_becomes_of_a_text(text: str, expected: str) -> None:
    assert " ".join(spoken(text).split()) == expected


@pytest.mark.parametrize(("text", "found"), [("$x$", True), (r"\(x\)", True), ("$5 and $6", False), ("US$x$", False)])
def test_what_is_a_formula(text: str, found: bool) -> None:
    assert bool(FORMULA.search(text)) is found
