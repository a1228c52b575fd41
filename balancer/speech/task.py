"""One request for speech on its way: what is to be spoken, and where the work for it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balancer.dispatch.early_audio import EarlyAudio
from balancer.requests.speech_request import RequestContext, SpeechRequest
from balancer.speech.place import Place
from balancer.speech.segment_requests import request_of
from balancer.text.segments import Segment


@dataclass(frozen=True)
class SpeechTask:
    """One request, and where the work for it waits."""

    request: SpeechRequest
    context: RequestContext
    place: Place
    segments: Sequence[Segment]
    first_piece_tokens: int | None = None
    """Speech tokens after which the audio's first piece is made, in its first segment; None: no piece is wanted."""
    early: EarlyAudio | None = None
    """Hands on the PCM of a single segment while it is made."""

    @property
    def one_utterance(self) -> bool:
        """Whether the text is one segment, with no silence around it."""
        first = self.segments[0]
        return len(self.segments) == 1 and not first.leading_silence and not first.silence

    def request_of(self, number: int) -> SpeechRequest:
        """The request for a segment."""
        return self.request if self.one_utterance else request_of(self.segments[number], number, self.request)

    def first_piece_of(self, number: int) -> int | None:
        """`first_piece_tokens` of a segment."""
        return self.first_piece_tokens if number == 0 else None

    @property
    def deadline(self) -> float | None:
        """The client's own, on the event loop's clock."""
        return self.place.terms.deadline
