"""Lines that become paragraphs."""

from __future__ import annotations

import pytest

from balancer.text.lines import join


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("one\ntwo", "one two"),
        ("- a\n- b", "a. b"),
        ("\u2022 a", "a"),
        (
            "a line that was wrapped by a program at so many\nCharacters",
            "a line that was wrapped by a program at so many Characters",
        ),
        ("12 Main St\nSpringfield", "12 Main St. Springfield"),
        ("inter-\nnational", "international"),
        ("well-\nknown", "well- known"),
        ("---\nx\n \n\ny", "x\n\ny"),
        ("a\n=====\nb", "a\n\nb"),
        (" \n\n", ""),
    ],
)
def test_lines_are_joined_to_paragraphs(text: str, joined: str) -> None:
    assert join(text) == joined
