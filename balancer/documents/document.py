"""The content of a document: chapters, or the jobs of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

MAX_FILE_BYTES = 32 * 2**20
"""A document may have pictures, which are not read."""
MAX_CHARACTERS = 4_000_000
"""Characters of a document's text, at most: those of the longest novels."""
MAX_CHAPTERS = 5000
MAX_JOBS = 10_000
MAX_TITLE_CHARACTERS = 300

_PARAGRAPH_END = "\n\n"
_BREAKS = (_PARAGRAPH_END, "\n", ". ", " ")
"""Places at which a text is cut, the best first."""


class DocumentError(ValueError):
    """A document cannot be read; the message says why and what to do."""


class DocumentType(StrEnum):
    """The types that can be read."""

    TEXT = "text"
    MARKDOWN = "markdown"
    EPUB = "epub"
    CSV = "csv"

    @classmethod
    def of_name(cls, name: str) -> DocumentType | None:
        """The type of a file of that name, by its suffix; None if it tells none."""
        return _SUFFIXES.get(PurePosixPath(name).suffix.lower())

    @classmethod
    def of_media_type(cls, media_type: str) -> DocumentType | None:
        """The type by a media type in lower case, without parameters; None if it is another."""
        return _MEDIA_TYPES.get(media_type)


_SUFFIXES = {
    ".txt": DocumentType.TEXT,
    ".text": DocumentType.TEXT,
    ".md": DocumentType.MARKDOWN,
    ".markdown": DocumentType.MARKDOWN,
    ".epub": DocumentType.EPUB,
    ".csv": DocumentType.CSV,
    ".tsv": DocumentType.CSV,
}
_MEDIA_TYPES = {
    "text/plain": DocumentType.TEXT,
    "text/markdown": DocumentType.MARKDOWN,
    "text/x-markdown": DocumentType.MARKDOWN,
    "application/epub+zip": DocumentType.EPUB,
    "text/csv": DocumentType.CSV,
    "text/tab-separated-values": DocumentType.CSV,
}
KINDS = "plain text (.txt), Markdown (.md), EPUB (.epub) or CSV (.csv)"


@dataclass(frozen=True)
class Chapter:
    """A part of a document with a text of its own."""

    title: str
    """Empty if it has none."""
    text: str


@dataclass(frozen=True)
class JobRow:
    """A row of a table: one text to speak."""

    text: str
    character: str | None = None
    """The voice."""


@dataclass(frozen=True)
class Document:
    """Chapters, or jobs if it is a table."""

    title: str
    """Empty if it has none."""
    chapters: tuple[Chapter, ...] = field(default=())
    jobs: tuple[JobRow, ...] = field(default=())


def title_of(words: str) -> str:
    """A line of text as a title."""
    return " ".join(words.split())[:MAX_TITLE_CHARACTERS]


def in_parts(chapters: Iterable[Chapter], max_characters: int) -> Iterator[Chapter]:
    """The chapters; of one with more than `max_characters`, its parts, which are cut between paragraphs if possible."""
    for chapter in chapters:
        parts = list(_parts(chapter.text, max_characters))
        for number, part in enumerate(parts, start=1):
            title = f"{chapter.title} ({number})".lstrip() if len(parts) > 1 else chapter.title
            yield Chapter(title, part)


def _parts(text: str, max_characters: int) -> Iterator[str]:
    text = text.strip()
    start = 0
    while len(text) - start > max_characters:
        end = _cut(text, start, start + max_characters)
        yield text[start:end].strip()
        start = end
    if rest := text[start:].strip():
        yield rest


def _cut(text: str, start: int, limit: int) -> int:
    """The end of a part that begins at `start`, at most `limit`."""
    for mark in _BREAKS:
        if (place := text.rfind(mark, start + (limit - start) // 2, limit)) >= 0:
            return place + len(mark)
    return limit
