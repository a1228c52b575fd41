"""Reads a document of any type. For one that comes from somebody else, use `isolated_reading`."""

from __future__ import annotations

from dataclasses import replace

from balancer.documents import csv_jobs, epub, markdown_chapters
from balancer.documents.document import (
    MAX_CHARACTERS,
    Chapter,
    Document,
    DocumentError,
    DocumentType,
    in_parts,
    title_of,
)
from balancer.documents.encoding import decode


def read(content: bytes, kind: DocumentType, *, name: str, max_characters: int) -> Document:
    """The document. `name` is its title if it has none itself; a chapter has at most `max_characters`.

    Raises DocumentError.
    """
    document = epub.read(content) if kind is DocumentType.EPUB else _of_text(_text(content), kind)
    chapters = tuple(in_parts(document.chapters, max_characters))
    if not chapters and not document.jobs:
        raise DocumentError("there is no text in it")
    return replace(document, title=document.title or title_of(name), chapters=chapters)


def _of_text(text: str, kind: DocumentType) -> Document:
    match kind:
        case DocumentType.MARKDOWN:
            return markdown_chapters.read(text)
        case DocumentType.CSV:
            return csv_jobs.read(text)
        case _:
            return Document("", (Chapter("", text),))


def _text(content: bytes) -> str:
    text = decode(content)
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(f"it has more than {MAX_CHARACTERS} characters: send it in parts")
    return text
