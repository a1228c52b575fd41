"""Applies a stage to a long text chunk by chunk.

A regular expression holds the interpreter's lock for as long as it goes through its text. With chunks, a long text does
not keep the event loop, in another thread, from running.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from balancer.text.spoken_text import PARAGRAPH

MAX_CHARACTERS = 2000
"""Characters of a chunk, at most. A shorter text is one chunk."""

_SENTENCE_END = re.compile(r"[.!?][\"')\]\u201d\u2019]{0,3}\s")
_BLANK = re.compile(r"\s")


def apply(stage: Callable[[str], str], text: str) -> str:
    """`text` after the stage. A long text is cut between paragraphs, else sentences, else words, else anywhere."""
    done: list[str] = []
    start = 0
    while len(text) - start > MAX_CHARACTERS:
        end = start + _cutting_place(text[start : start + MAX_CHARACTERS])
        chunk = text[start:end]
        words = chunk.rstrip()
        done += stage(words), chunk[len(words) :]
        start = end
    return "".join([*done, stage(text[start:])])


def _cutting_place(window: str) -> int:
    """The last place in the second half of the window where the text may be cut best."""
    half = len(window) // 2
    if (end := window.rfind(PARAGRAPH, half)) >= 0:
        return end + len(PARAGRAPH)
    for pattern in (_SENTENCE_END, _BLANK):
        if ends := [match.end() for match in pattern.finditer(window, half)]:
            return ends[-1]
    return len(window)
