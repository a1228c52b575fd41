"""The chapters of a text in Markdown, at its headings."""

from __future__ import annotations

import re
from collections import Counter

from balancer.documents.document import Chapter, Document, title_of
from balancer.text.markup import html, markdown
from balancer.text.markup.markdown import Section

_FRONT_MATTER_TITLE = re.compile(r"\A---\n(?:[^\n]*\n){0,50}?title:[ \t]*([^\n]{1,500})\n")


def read(text: str) -> Document:
    """The document. What is before the first chapter is a chapter without a title."""
    sections = markdown.sections(html.remove(text))
    titled = _FRONT_MATTER_TITLE.match(text)
    title = titled[1].strip("\"' ") if titled else ""
    levels = Counter(section.level for section in sections if section.level)
    if not title and sections and levels[1] == 1:
        title = next(section.heading for section in sections if section.level == 1)
    return Document(title_of(title), _chapters(sections, _chapter_level(levels)))


def _chapter_level(levels: Counter[int]) -> int:
    """The level of the headings that begin chapters: the highest that occurs more than once."""
    return min((level for level, number in levels.items() if number > 1), default=min(levels, default=1))


def _chapters(sections: list[Section], level: int) -> tuple[Chapter, ...]:
    chapters: list[tuple[str, list[str]]] = []
    for section in sections:
        if chapters and section.level > level:
            chapters[-1][1].append(section.text)
        elif section.text:
            chapters.append((title_of(section.heading), [section.text]))
    return tuple(Chapter(title, "\n\n".join(filter(None, texts))) for title, texts in chapters)
