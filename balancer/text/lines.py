"""Lines become paragraphs: wrapped lines joined, words divided at a line's end made whole, separator lines dropped."""

from __future__ import annotations

import re

from balancer.text.marks import MARKS
from balancer.text.spoken_text import PARAGRAPH

_WORD = re.compile(rf"[\w{MARKS}]")
_DIVIDED = re.compile(
    r"(?<=[^\W\d_])(?<!\bwell)(?<!\bself)(?<!\bhalf)(?<!\bnon)-\n[ \t]*(?=[^\W\d_])(?=[a-z\u00df-\u00ff])"
)
_PARAGRAPHS = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_BULLET = re.compile(r"^[ \t]*(?:\u2022[ \t]*|[*+-][ \t]+)")

MIN_SEPARATOR_CHARACTERS = 3
MIN_WRAPPED_CHARACTERS = 40
"""A line that is shorter, without punctuation at its end and before a capital or digit, was not wrapped: it is a line
of an address, a verse or a list."""

_ENDS = tuple(".!?:;,-\u2013\u2014\u2026")


def join(text: str) -> str:
    """`text` with one line for each paragraph, set apart by empty lines."""
    if "\n" not in text:
        return _BULLET.sub("", text).strip()
    text = "\n".join("" if _separates(line) else line for line in text.split("\n"))
    text = _DIVIDED.sub("", text)
    paragraphs = (_joined(paragraph) for paragraph in _PARAGRAPHS.split(text))
    return PARAGRAPH.join(filter(None, paragraphs))


def _separates(line: str) -> bool:
    """Whether a line is a row of symbols."""
    return len(line.strip()) >= MIN_SEPARATOR_CHARACTERS and not _WORD.search(line)


def _joined(paragraph: str) -> str:
    lines = [line.strip() for line in paragraph.split("\n") if line.strip()]
    parts: list[str] = []
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        bulleted = bool(_BULLET.match(line))
        content = _BULLET.sub("", line)
        if not content:
            continue
        breaks = bulleted or bool(_BULLET.match(following)) or _starts_anew(line, following)
        parts.append(f"{content}." if following and breaks and not _ended(content) else content)
    return " ".join(parts)


def _starts_anew(line: str, following: str) -> bool:
    first = following.lstrip("\"'(")[:1]
    return len(line) < MIN_WRAPPED_CHARACTERS and (first.isupper() or first.isdigit())


def _ended(line: str) -> bool:
    return line.rstrip("\"') ").endswith(_ENDS)
