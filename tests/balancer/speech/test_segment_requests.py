"""Each segment of a text is a request of its own, with a seed of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
from balancer.settings.speech import PauseSettings
from balancer.speech.segment_requests import pauses_around, request_of, segments_of
from balancer.text.segments import Boundary, Segment
from balancer.text.spoken_text import Pause
from voices.registry import Voice
from worker.cards import SegmentLength

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
    ("language", "first"), [("de", "Das ist z.B. gut."), ("de-AT", "Das ist z.B. gut."), ("fr", "Das ist z.")]
)
def test_sentences_end_by_the_rules_of_the_requests_language(language: str, first: str) -> None:
    request = replace(REQUEST, text="Das ist z.B. gut. Ja so.", language=language)
    assert segments_of(request, SegmentLength(maximum=17))[0].text == first


def test_a_pause_divides_segments() -> None:
    request = replace(REQUEST, text="One, two.", pauses=(Pause(5, 1.5),))
    first, second = segments_of(request, SegmentLength(maximum=100))
    assert (first.text, first.silence) == ("One,", 1.5)
    assert (second.text, second.silence) == ("two.", None)
    assert request_of(second, 1, request).pauses == ()


def test_pauses_follow_what_a_segment_ends_with() -> None:
    segments = [Segment("a", boundary) for boundary in Boundary]
    settings = PauseSettings(clause_pause_ms=100, sentence_pause_ms=200, paragraph_pause_ms=300)
    assert pauses_around(segments, settings) == [0.0, 0.1, 0.2, 0.3, 0.0]
    assert pauses_around(segments[:1], settings) == [0.0, 0.0]


def test_silence_that_the_text_asks_for_comes_before_the_settings() -> None:
    segments = [
        Segment("a", Boundary.SENTENCE, silence=2.0, leading_silence=1.0),
        Segment("b", Boundary.PARAGRAPH),
        Segment("c", Boundary.END, silence=3.0),
    ]
    assert pauses_around(segments, PauseSettings(paragraph_pause_ms=300)) == [1.0, 2.0, 0.3, 3.0]
    assert pauses_around(segments[:2], PauseSettings(paragraph_pause_ms=300)) == [1.0, 2.0, 0.0]
