"""Marks of pauses and tags."""

from __future__ import annotations

import re

import pytest

from balancer.text.marks import MARKS, PARAGRAPH_MARK, PAUSE_MARKS, pause_mark, pause_seconds, tag_mark, tag_of

TAGS = ("[laugh]", "[sigh]")


@pytest.mark.parametrize(("seconds", "held"), [(0, 0), (0.25, 0.25), (1.5, 1.5), (10, 10), (99, 10), (-1, 0)])
def test_a_pause_has_a_mark_that_tells_its_length(seconds: float, held: float) -> None:
    mark = pause_mark(seconds)
    assert pause_seconds(mark) == held
    assert tag_of(TAGS, mark) is None
    assert re.fullmatch(f"[{PAUSE_MARKS}]", mark)


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_has_a_mark_that_names_it(tag: str) -> None:
    mark = tag_mark(TAGS, tag)
    assert tag_of(TAGS, mark) == tag
    assert pause_seconds(mark) is None
    assert re.fullmatch(f"[{MARKS}]", mark)
    assert not re.fullmatch(f"[{PAUSE_MARKS}]", mark)


@pytest.mark.parametrize("character", ["a", "\ue000", PARAGRAPH_MARK])
def test_other_characters_are_no_marks(character: str) -> None:
    assert pause_seconds(character) is None
    assert tag_of(TAGS, character) is None
    assert not re.fullmatch(f"[{MARKS}]", character)
