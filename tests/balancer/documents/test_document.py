from __future__ import annotations

import pytest

from balancer.documents.document import Chapter, DocumentType, in_parts, title_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chapter.md", "markdown"),
        ("a/b/Chapter.MARKDOWN", "markdown"),
        ("notes.txt", "text"),
        ("book.epub", "epub"),
        ("jobs.csv", "csv"),
        ("book.pdf", None),
        ("md", None),
        ("", None),
    ],
)
def test_the_type_of_a_file_name(name: str, kind: str | None) -> None:
    assert DocumentType.of_name(name) == kind


@pytest.mark.parametrize(
    ("media_type", "kind"), [("text/plain", "text"), ("text/csv", "csv"), ("application/octet-stream", None)]
)
def test_the_type_of_a_media_type(media_type: str, kind: str | None) -> None:
    assert DocumentType.of_media_type(media_type) == kind


def test_a_title_is_one_line_of_bounded_length() -> None:
    assert title_of(" A \n title ") == "A title"
    assert len(title_of("x" * 1000)) == 300


def parts(text: str, size: int, title: str = "One") -> list[tuple[str, str]]:
    return [(chapter.title, chapter.text) for chapter in in_parts([Chapter(title, text)], size)]


def test_a_short_chapter_stays_whole() -> None:
    assert parts(" Short. ", 100) == [("One", "Short.")]


def test_a_long_chapter_is_cut_between_paragraphs() -> None:
    assert parts("First. Second.\n\nThird.", 20) == [("One (1)", "First. Second."), ("One (2)", "Third.")]
    assert parts("aaaa aaaa.\n\nb", 12, title="")[0][0] == "(1)"


@pytest.mark.parametrize("text", ["One. Two. Three. Four. Five. Six.", "word " * 50, "x" * 101, "a\nb\nc\n" * 20])
def test_nothing_is_lost_and_no_part_is_too_long(text: str) -> None:
    found = parts(text, 25)
    assert all(len(part) <= 25 for _, part in found)
    assert "".join("".join(part for _, part in found).split()) == "".join(text.split())


def test_a_chapter_without_a_text_is_left_out() -> None:
    assert parts(" \n ", 10) == []
