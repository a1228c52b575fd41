"""Splits a text into segments, each of a length that the engine speaks best, with the pause after each.

Sentences are found by sentencex, by the rules of the text's language. Short ones are joined, up to the engine's best
length; one that is too long is cut at a clause, else between words. Segments do not span paragraphs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate
from math import ceil

import sentencex

from balancer.text.spoken_text import MAX_COMMA_SECONDS, PARAGRAPH, Pause
from worker.cards import SegmentLength

_PARAGRAPHS = re.compile(r"\n\s*\n")
_DASHES = "\u2013\u2014"
_CLAUSE_END = re.compile(rf"(?:[,;:{_DASHES}][\"')\]\u201d\u2019]*\s+|\s+[-{_DASHES}]\s+|[\u3001\uff0c\uff1b\uff1a])")
"""The end of a clause, with the blanks behind."""
INNER_END = re.compile(r"[.!?\n].*\w", re.DOTALL)
"""A place at which a sentence of ASCII characters might end before the end of the text."""
_BLANKS = re.compile(r"\s+")
VERY_SHORT = 0.25
"""The part of an engine's minimum below which a paragraph is not spoken alone."""
WIDE_CHARACTER = 3
"""Letters that take as long as one character of Chinese, Japanese or Korean."""


class Boundary(Enum):
    """The kind of a segment's end."""

    CLAUSE = "clause"
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    END = "end"
    """The end of the text."""


@dataclass(frozen=True)
class Segment:
    """A part of a text that is spoken in one utterance."""

    text: str
    boundary: Boundary
    silence: float | None = None
    """Seconds of silence behind it that the text asks for; None: the usual pause after its boundary."""
    leading_silence: float = 0.0
    """Seconds of silence before it that the text asks for."""


def split(text: str, language: str, length: SegmentLength, pauses: Sequence[Pause] = ()) -> list[Segment]:
    """The segments of a text, in order, together all of its words; `language` is a tag such as `en` or `pt-BR`.

    No segment is longer than `length.maximum`, where a wide character counts as WIDE_CHARACTER. A text that fits is not
    changed. `pauses` are silences that the text asks for, in order.
    """
    if not pauses:
        return _split(text, language, length)
    segments: list[Segment] = []
    leading = 0.0
    for piece, pause in _pieces(text, pauses, VERY_SHORT * length.minimum):
        if _is_spoken(piece):
            segments += _split(piece.strip(), language, length)
        if not segments:
            leading += pause or 0.0
        elif pause is not None:
            segments[-1] = replace(segments[-1], silence=(segments[-1].silence or 0.0) + pause)
    if not segments:  # nothing of it is spoken, which is for the engine to say
        return _split(text, language, length)
    return [replace(segments[0], leading_silence=leading), *segments[1:]]


def shorten_first(segments: Sequence[Segment], language: str, length: SegmentLength, maximum: int) -> list[Segment]:
    """The same segments, where one that is longer than `maximum` characters and comes first is cut in two.

    It is cut at the last end of a sentence within `maximum`, else of a clause, else at the first end of either behind
    that. Of a sentence, no rest is cut off that is too short to be spoken alone. Where no end leaves enough for that on
    both sides, it stays whole.
    """
    first, rest = segments[0], segments[1:]
    limits = _scaled(SegmentLength(minimum=max(1, ceil(VERY_SHORT * length.minimum)), maximum=maximum), first.text)
    if len(first.text) <= limits.maximum:
        return [first, *rest]
    sentence_ends = accumulate(map(len, sentencex.segment(_primary(language), first.text)))
    clause_ends = (match.end() for match in _CLAUSE_END.finditer(first.text))
    ends = dict.fromkeys(clause_ends, Boundary.CLAUSE) | dict.fromkeys(sentence_ends, Boundary.SENTENCE)
    fitting = [end for end in sorted(ends) if limits.minimum <= end <= len(first.text) - limits.minimum]
    if not fitting:
        return [first, *rest]
    soon = [end for end in fitting if end <= limits.maximum]
    sentences = [end for end in soon if ends[end] is Boundary.SENTENCE]
    end = (sentences or soon or fitting[:1])[-1]
    if ends[end] is Boundary.CLAUSE:
        near = (later for later in fitting if end < later < end + limits.minimum and ends[later] is Boundary.SENTENCE)
        end = next(near, end)
    begin = replace(first, text=first.text[:end].rstrip(), boundary=ends[end], silence=None)
    return [begin, replace(first, text=first.text[end:].lstrip(), leading_silence=0.0), *rest]


def _pieces(text: str, pauses: Sequence[Pause], very_short: float) -> Iterator[tuple[str, float | None]]:
    """The text between the pauses, and the seconds behind each piece; None behind the last.

    A pause of a comma's length beside a very short piece is left to the engine.
    """
    start = 0
    ends = [pause.position for pause in pauses[1:]] + [len(text)]
    for pause, end in zip(pauses, ends, strict=False):
        shortest = min(pause.position - start, end - pause.position)
        if pause.seconds > MAX_COMMA_SECONDS or shortest >= very_short:
            yield text[start : pause.position], pause.seconds
            start = pause.position
    yield text[start:], None


def _split(text: str, language: str, length: SegmentLength) -> list[Segment]:
    if len(text) <= length.maximum and text.isascii() and not INNER_END.search(text):
        return [Segment(text, Boundary.END)]
    language = _primary(language)
    length = _scaled(length, text)
    segments: list[Segment] = []
    for paragraph in _PARAGRAPHS.split(text):
        parts = list(
            _joined(_cut(_sentences(paragraph, language), length.maximum), length.minimum, length.maximum, " ")
        )
        if parts:
            segments += parts[:-1]
            segments.append(Segment(parts[-1].text, Boundary.PARAGRAPH))
    segments = list(_joined(iter(segments), VERY_SHORT * length.minimum, length.maximum, PARAGRAPH))
    if len(segments) <= 1 and len(text) <= length.maximum:
        return [Segment(text, Boundary.END)]
    if not segments:  # white space alone, more than fits
        return [Segment(" ", Boundary.END)]
    return [*segments[:-1], Segment(segments[-1].text, Boundary.END)]


def _primary(language: str) -> str:
    """The language of a tag, without script and region."""
    return re.split("[-_]", language, maxsplit=1)[0].lower()


def _scaled(length: SegmentLength, text: str) -> SegmentLength:
    """The length in characters of this text, of which some may be wide."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    scale = 1 + (WIDE_CHARACTER - 1) * wide / max(1, len(text))
    return SegmentLength(minimum=ceil(length.minimum / scale), maximum=max(1, int(length.maximum / scale)))


def _sentences(paragraph: str, language: str) -> Iterator[Segment]:
    """The sentences of a paragraph. What has neither letter nor digit is part of the sentence before or behind it."""
    pending = ""
    for sentence in sentencex.segment(language, paragraph):
        pending += sentence
        if _is_spoken(sentence):
            yield Segment(pending.strip(), Boundary.SENTENCE)
            pending = ""
    if pending.strip():
        yield Segment(pending.strip(), Boundary.SENTENCE)


def _is_spoken(text: str) -> bool:
    return any(map(str.isalnum, text))


def _cut(sentences: Iterator[Segment], maximum: int) -> Iterator[Segment]:
    """The sentences, of which those longer than `maximum` are cut into parts of about one length."""
    for sentence in sentences:
        rest = sentence.text
        while len(rest) > maximum:
            end, boundary = _cutting_place(rest, len(rest) / ceil(len(rest) / maximum), maximum)
            yield Segment(rest[:end].rstrip(), boundary)
            rest = rest[end:].lstrip()
        if rest:
            yield Segment(rest, sentence.boundary)


def _cutting_place(text: str, ideal: float, maximum: int) -> tuple[int, Boundary]:
    """The place to cut at: nearest to `ideal`, at the end of a clause, else between words, else anywhere."""
    window = text[: maximum + 1]
    for pattern in (_CLAUSE_END, _BLANKS):
        # Blanks behind the cut do not count.
        ends = [match.end() for match in pattern.finditer(window) if 0 < len(window[: match.end()].rstrip()) <= maximum]
        ends = [end for end in ends if end > ideal / 2]
        if ends:
            return min(ends, key=lambda end: abs(end - ideal)), Boundary.CLAUSE
    return maximum, Boundary.CLAUSE


def _joined(parts: Iterator[Segment], minimum: float, maximum: int, between: str) -> Iterator[Segment]:
    """The parts, of which those shorter than `minimum` are joined to a neighbour where both fit into `maximum`."""
    pending: Segment | None = None
    for part in parts:
        if pending is None:
            pending = part
            continue
        length = len(pending.text) + len(between) + len(part.text)
        if min(len(pending.text), len(part.text)) < minimum and length <= maximum:
            pending = Segment(f"{pending.text}{between}{part.text}", part.boundary)
        else:
            yield pending
            pending = part
    if pending is not None:
        yield pending
