"""The requests for the segments of a text, and what one text's segments share; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from balancer.requests.speech_request import SpeechRequest
from balancer.settings.speech import PauseSettings
from balancer.text.segments import Boundary, Segment, shorten_first, split
from worker.cards import SegmentLength

SOON_CHARACTERS = 80
"""Length of the first segment of a text that is to be heard soon, at most, where its sentences and clauses allow it."""


def segments_of(request: SpeechRequest, length: SegmentLength) -> list[Segment]:
    """The segments of a request's text."""
    return split(request.text, request.language, length, request.pauses)


def begin_soon(segments: Sequence[Segment], request: SpeechRequest, length: SegmentLength) -> list[Segment]:
    """The same segments of a request's text, with a short one first."""
    return shorten_first(segments, request.language, length, SOON_CHARACTERS)


def request_of(segment: Segment, number: int, request: SpeechRequest) -> SpeechRequest:
    """The request for one segment: `number` is its place in the text, from which it has a seed of its own."""
    digest = hashlib.sha256(f"{request.seed} {number}".encode()).digest()
    return replace(request, text=segment.text, pauses=(), seed=int.from_bytes(digest[:4], "big"))


def pauses_around(segments: Sequence[Segment], settings: PauseSettings) -> list[float]:
    """The silence before the first segment, between the segments and behind the last, in seconds.

    What the text asks for comes before the settings.
    """
    lasts = [None, *segments[:-1]]
    before = [pause_before(segment, last, settings) for segment, last in zip(segments, lasts, strict=True)]
    return [*before, segments[-1].silence or 0.0]


def pause_before(segment: Segment, last: Segment | None, settings: PauseSettings) -> float:
    """The silence before a segment in seconds; `last` is the one that is spoken before it, None if there is none."""
    return segment.leading_silence if last is None else _pause_behind(last, settings)


def _pause_behind(segment: Segment, settings: PauseSettings) -> float:
    """The silence between a segment and the next, in seconds."""
    if segment.silence is not None:
        return segment.silence
    match segment.boundary:
        case Boundary.CLAUSE:
            return settings.clause_pause_ms / 1000
        case Boundary.PARAGRAPH:
            return settings.paragraph_pause_ms / 1000
        case _:
            return settings.sentence_pause_ms / 1000
