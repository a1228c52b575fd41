"""The result of the front end: what is to be said, in spans with the pauses between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

PARAGRAPH = "\n\n"
MAX_COMMA_SECONDS = 0.35
"""A pause up to this length is written as a comma, a longer one as the end of a sentence."""
MIN_SILENCE_SECONDS = 30.0
SILENCE_SECONDS_PER_CHARACTER = 0.1
"""All pauses of a text together take at most MIN_SILENCE_SECONDS and this for each of its characters."""

_ENDS = (".", "!", "?", ":", ";", ",")


@dataclass(frozen=True)
class Span:
    """Text of one paragraph without a pause in it, and what follows it."""

    text: str
    pause: float | None = None
    """Seconds of silence behind it that the text asks for; None: none but those of its punctuation."""
    ends_paragraph: bool = False


@dataclass(frozen=True)
class Pause:
    """Silence that a text asks for."""

    position: int
    """Index of the character before which it lies; at the end of a text, its length."""
    seconds: float


@dataclass(frozen=True)
class SpokenText:
    """A text as it is to be said: in spans, or written as one text with its pauses beside it."""

    spans: tuple[Span, ...]

    @property
    def plain(self) -> str:
        """One text: paragraphs are set apart by empty lines, and a pause is a comma or the end of a sentence."""
        return self._written[0]

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """The pauses in `plain`, in order. What is past the limit of all together is left out."""
        return self._written[1]

    @cached_property
    def _written(self) -> tuple[str, tuple[Pause, ...]]:
        parts: list[str] = []
        pauses: list[Pause] = []
        length, ended, pause = 0, "", 0.0
        new_paragraph = False
        for span in self.spans:
            if span.text:
                between = _between(ended, pause, new_paragraph) if ended else ""
                length += len(between)
                if pause:
                    pauses.append(Pause(length, pause))
                parts += between, span.text
                length += len(span.text)
                ended, pause, new_paragraph = span.text, 0.0, False
            pause += span.pause or 0.0
            new_paragraph = new_paragraph or span.ends_paragraph
        if pause:
            pauses.append(Pause(length, pause))
        return "".join(parts), tuple(_bounded(pauses, length))


def _between(ended: str, pause: float, new_paragraph: bool) -> str:
    """The characters behind the span `ended`, if the next one follows after a pause or in a new paragraph."""
    if new_paragraph:
        return PARAGRAPH if ended.endswith(_ENDS) else "." + PARAGRAPH
    if ended.endswith(_ENDS) or not pause:
        return " "
    return ", " if pause <= MAX_COMMA_SECONDS else ". "


def _bounded(pauses: Sequence[Pause], characters: int) -> Iterator[Pause]:
    rest = MIN_SILENCE_SECONDS + SILENCE_SECONDS_PER_CHARACTER * characters
    for pause in pauses:
        if pause.seconds > rest:
            return
        rest -= pause.seconds
        yield pause
