"""The requests for the segments of a text, and what one text's segments share; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from balancer.requests.speech_request import DEFAULT_LANGUAGE, SpeechRequest
from balancer.settings_groups import PauseSettings
from balancer.text.segments import Boundary, Segment, split
from worker.cards import SegmentLength


def segments_of(request: SpeechRequest, length: SegmentLength) -> list[Segment]:
    """The segments of a request's text, by the rules of the language that it asks for, else of its voice."""
    language = request.parameters.get("language") or request.voice.language or DEFAULT_LANGUAGE
    return split(request.text, str(language), length)


def request_of(segment: Segment, number: int, request: SpeechRequest) -> SpeechRequest:
    """The request for one segment: `number` is its place in the text, from which it has a seed of its own."""
    digest = hashlib.sha256(f"{request.seed} {number}".encode()).digest()
    return replace(request, text=segment.text, seed=int.from_bytes(digest[:4], "big"))


def pauses_between(segments: Sequence[Segment], settings: PauseSettings) -> list[float]:
    """The pauses between the segments, in seconds."""
    milliseconds = {
        Boundary.CLAUSE: settings.clause_pause_ms,
        Boundary.SENTENCE: settings.sentence_pause_ms,
        Boundary.PARAGRAPH: settings.paragraph_pause_ms,
    }
    return [milliseconds[segment.boundary] / 1000 for segment in segments[:-1]]
