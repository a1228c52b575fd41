from __future__ import annotations

import pytest

from balancer.documents import reading
from balancer.documents.document import Document, DocumentError, DocumentType
from tests.support.epubs import book, page


def read(content: bytes, kind: DocumentType, max_characters: int = 1000) -> Document:
    return reading.read(content, kind, name="a file", max_characters=max_characters)


def test_every_type() -> None:
    assert read(b"Hello.", DocumentType.TEXT).chapters[0].text == "Hello."
    assert read(b"*Hello.*", DocumentType.MARKDOWN).chapters[0].text == "Hello."
    assert read(book({"a.xhtml": page("Hello.")}), DocumentType.EPUB).chapters[0].text == "Hello."
    assert read(b"text\nHello.", DocumentType.CSV).jobs[0].text == "Hello."


def test_the_name_of_the_file_is_the_title_of_a_document_without_one() -> None:
    assert read(b"Hello.", DocumentType.TEXT).title == "a file"
    assert read(b"# Own\n\nHello.", DocumentType.MARKDOWN).title == "Own"


def test_a_long_chapter_comes_in_parts() -> None:
    parts = read(b"# Own\n\n" + b"Hello.\n\n" * 10, DocumentType.MARKDOWN, 50).chapters
    assert [part.title for part in parts] == ["Own (1)", "Own (2)"]


@pytest.mark.parametrize("kind", [DocumentType.TEXT, DocumentType.MARKDOWN])
@pytest.mark.parametrize("content", [b"", b" \n\n "])
def test_nothing_to_speak(kind: DocumentType, content: bytes) -> None:
    with pytest.raises(DocumentError, match="there is no text in it"):
        read(content, kind)


def test_too_much_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_CHARACTERS", 5)
    with pytest.raises(DocumentError, match="more than 5 characters: send it in parts"):
        read(b"Hello.", DocumentType.TEXT)
