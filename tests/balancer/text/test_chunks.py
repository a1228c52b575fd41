"""Long texts go through a stage chunk by chunk, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.text.chunks import MAX_CHARACTERS, apply

SENTENCE = "It is late. "
PARAGRAPH = SENTENCE * 40 + "\n\n"


def chunks(text: str) -> list[str]:
    seen: list[str] = []

    def stage(chunk: str) -> str:
        seen.append(chunk)
        return chunk

    assert apply(stage, text) == text
    return seen


def test_a_short_text_is_one_chunk() -> None:
    assert chunks("x" * MAX_CHARACTERS) == ["x" * MAX_CHARACTERS]


@pytest.mark.parametrize(
    ("text", "end"),
    [(PARAGRAPH * 20, "late."), (SENTENCE * 1000, "late."), ("late " * 2000, "late"), ("x" * 9000, "x")],
)
def test_chunks_end_with_whole_paragraphs_sentences_or_words(text: str, end: str) -> None:
    found = chunks(text)
    assert len(found) > 3
    assert all(chunk.endswith(end) and len(chunk) <= MAX_CHARACTERS for chunk in found[:-1])


def test_paragraphs_are_not_cut_where_they_fit() -> None:
    pieces = [piece for chunk in chunks(PARAGRAPH * 20) for piece in chunk.split("\n\n") if piece]
    assert {piece.strip() for piece in pieces} == {PARAGRAPH.strip()}


@given(st.text(alphabet="ab. \n", max_size=3 * MAX_CHARACTERS))
def test_no_character_is_lost(text: str) -> None:
    assert "".join("".join(chunks(text)).split()) == "".join(text.split())
