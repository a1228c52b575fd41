"""Each segment of a text is a request of its own, with a seed of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
from balancer.settings_groups import PauseSettings
from balancer.speech.segment_requests import pauses_between, request_of, segments_of
from balancer.text.segments import Boundary, Segment
from voices.registry import Voice
from worker.cards import SegmentLength
from worker.contract import ParameterValue

REQUEST = SpeechRequest(
    "One. Two.", Voice(name="ada", engine="*"), {"temperature": 0.5}, 7, AudioFormat.MP3, 1.5, seeded=True
)


def test_a_segments_request_differs_in_text_and_seed_alone() -> None:
    segment = Segment("Two.", Boundary.END)
    request = request_of(segment, 1, REQUEST)
    assert replace(request, text=REQUEST.text, seed=REQUEST.seed) == REQUEST
    assert request.text == "Two."


def test_a_seed_depends_on_the_requests_and_the_place() -> None:
    segment = Segment("Two.", Boundary.END)
    seeds = [
        request_of(segment, number, replace(REQUEST, seed=seed)).seed for seed in (7, 8, 2**32 - 1) for number in (0, 1)
    ]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert request_of(segment, 1, REQUEST) == request_of(segment, 1, REQUEST)


@pytest.mark.parametrize(
    ("parameters", "voice", "first"),
    [
        ({}, "de", "Das ist z.B. gut."),
        ({}, "de-AT", "Das ist z.B. gut."),
        ({"language": "de"}, "fr", "Das ist z.B. gut."),
        ({"language": "fr"}, "de", "Das ist z."),
    ],
)
def test_the_language_is_the_requests_then_the_voices(
    parameters: dict[str, ParameterValue], voice: str, first: str
) -> None:
    text = "Das ist z.B. gut. Ja so."
    request = replace(REQUEST, text=text, voice=Voice(name="ada", engine="*", language=voice), parameters=parameters)
    assert segments_of(request, SegmentLength(maximum=17))[0].text == first


def test_pauses_follow_what_a_segment_ends_with() -> None:
    segments = [Segment("a", boundary) for boundary in Boundary]
    settings = PauseSettings(clause_pause_ms=100, sentence_pause_ms=200, paragraph_pause_ms=300)
    assert pauses_between(segments, settings) == [0.1, 0.2, 0.3]
    assert pauses_between(segments[:1], settings) == []
