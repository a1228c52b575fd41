"""Marks: single characters that stand for a pause or a tag while a text goes through the stages.

They lie in a private-use area of Unicode, which no text of a client keeps, so that no client can write one.
"""

from __future__ import annotations

from collections.abc import Sequence

_PAUSES = 0xF0000
_TAGS = 0xF8000
PARAGRAPH_MARK = "\U000fffff"
"""Stands between paragraphs for rules that must not look beyond them; it is not white space."""
MAX_PAUSE_SECONDS = 10.0
"""Longest pause that a text may ask for; longer ones are cut to it."""

MARKS = f"{chr(_PAUSES)}-{chr(_TAGS + 0xFFF)}"
"""The range of all marks, for a character class of a regular expression."""
PAUSE_MARKS = f"{chr(_PAUSES)}-{chr(_TAGS - 1)}"
"""The range of the pauses."""


def pause_mark(seconds: float) -> str:
    """The mark of a pause."""
    return chr(_PAUSES + round(100 * min(max(seconds, 0.0), MAX_PAUSE_SECONDS)))


def pause_seconds(mark: str) -> float | None:
    """The length of a pause by its mark; None for another character."""
    return (ord(mark) - _PAUSES) / 100 if _PAUSES <= ord(mark) < _TAGS else None


def tag_mark(tags: Sequence[str], tag: str) -> str:
    """The mark of one of an engine's tags."""
    return chr(_TAGS + tags.index(tag))


def tag_of(tags: Sequence[str], mark: str) -> str | None:
    """The tag of a mark; None for another character."""
    return tags[ord(mark) - _TAGS] if _TAGS <= ord(mark) < _TAGS + len(tags) else None
