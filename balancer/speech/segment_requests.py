"""The requests for the segments of a text, and what one text's segments share; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from balancer.requests.speech_request import SpeechRequest
from balancer.settings_groups import PauseSettings
from balancer.text.segments import Boundary, Segment, split
from worker.cards import SegmentLength


def segments_of(request: SpeechRequest, length: SegmentLength) -> list[Segment]:
    """The segments of a request's text."""
    return split(request.text, request.language, length, request.pauses)


def request_of(segment: Segment, number: int, request: SpeechRequest) -> SpeechRequest:
    """The request for one segment: `number` is its place in the text, from which it has a seed of its own."""
    digest = hashlib.sha256(f"{request.seed} {number}".encode()).digest()
    return replace(request, text=segment.text, pauses=(), seed=int.from_bytes(digest[:4], "big"))


def pauses_around(segments: Sequence[Segment], settings: PauseSettings) -> list[float]:
    """The silence before the first segment, between the segments and behind the last, in seconds.

    What the text asks for comes before the settings.
    """
    milliseconds = {
        Boundary.CLAUSE: settings.clause_pause_ms,
        Boundary.SENTENCE: settings.sentence_pause_ms,
        Boundary.PARAGRAPH: settings.paragraph_pause_ms,
        Boundary.END: settings.sentence_pause_ms,
    }
    pauses = [
        milliseconds[segment.boundary] / 1000 if segment.silence is None else segment.silence for segment in segments
    ]
    pauses[-1] = segments[-1].silence or 0.0
    return [segments[0].leading_silence, *pauses]
