"""The result of the front end: what is to be said, in spans with the pauses between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PARAGRAPH = "\n\n"
MAX_COMMA_SECONDS = 0.35
"""A pause up to this length is a comma for an engine that takes text alone; a longer one is the end of a sentence."""

_ENDS = (".", "!", "?", ":", ";", ",")
_SENTENCE_ENDS = (".", "!", "?")


@dataclass(frozen=True)
class Span:
    """Text of one paragraph without a pause in it, and what follows it."""

    text: str
    pause: float | None = None
    """Seconds of silence behind it that the text asks for; None: none but those of its punctuation."""
    ends_paragraph: bool = False


@dataclass(frozen=True)
class SpokenText:
    """A text as it is to be said. A segmenter cuts its spans; an engine that takes text alone gets `plain`."""

    spans: tuple[Span, ...]

    @property
    def plain(self) -> str:
        """One text: paragraphs are set apart by empty lines, and a pause is a comma or the end of a sentence."""
        return "".join(_plain(self.spans)).strip()


def _plain(spans: tuple[Span, ...]) -> Iterator[str]:
    for index, span in enumerate(spans):
        last = index == len(spans) - 1
        yield span.text
        if last:
            break
        if span.ends_paragraph:
            yield ("" if span.text.endswith(_ENDS) else ".") + PARAGRAPH
        elif span.text.endswith(_SENTENCE_ENDS) or not span.text:
            yield " "
        elif span.pause is not None and span.pause <= MAX_COMMA_SECONDS:
            yield " " if span.text.endswith(_ENDS) else ", "
        else:
            yield ". "
