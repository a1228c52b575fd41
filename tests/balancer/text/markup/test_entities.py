"""Entities of HTML."""

from __future__ import annotations

import pytest

from balancer.text.markup.entities import decode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a &amp; b", "a & b"),
        ("&amp;lt;", "<"),
        ("AT&T", "AT&T"),
        ("&#39;&#x27;", "''"),
        ("&nbsp;x", "\xa0x"),
        ("&bogus;", "&bogus;"),
        ("&amp;&amp;&amp;", "&&&"),
    ],
)
def test_what_becomes_of_a_text(text: str, expected: str) -> None:
    assert decode(text) == expected
