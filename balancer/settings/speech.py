"""What becomes of a text: how it is said, its pauses, and the streams of its audio."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from balancer.settings.base import SettingsGroup


class TextSettings(SettingsGroup):
    """What becomes of a text before an engine speaks it."""

    title = "Text"

    normalize: bool = Field(
        True,
        description="Whether markup, numbers, dates, units, abbreviations and the like are said as they are meant, "
        "where a request does not say (`normalize`).",
    )


class PauseSettings(SettingsGroup):
    """The silence between the segments of a text."""

    title = "Pauses"

    clause_pause_ms: int = Field(
        150, ge=0, le=10_000, description="Silence in ms within a sentence that is too long for one utterance."
    )
    sentence_pause_ms: int = Field(350, ge=0, le=10_000, description="Silence in ms after a sentence.")
    paragraph_pause_ms: int = Field(700, ge=0, le=10_000, description="Silence in ms after a paragraph.")


class StreamSettings(SettingsGroup):
    """Answers that are sent while they are made.

    A stream that may run dry is served by default: OpenAI's clients are streamed to unasked, many of them to a file,
    and a host that makes less audio than one stream plays would refuse them all.
    """

    title = "Streams"

    stream_ahead_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds of audio that are made ahead of what a stream's client has read; then its next segments "
        "wait.",
    )
    stream_admission: Literal["best_effort", "refuse"] = Field(
        "best_effort",
        description="What becomes of a stream whose audio the host cannot make as fast as it plays: `best_effort` "
        "serves it, with gaps; `refuse` answers 503.",
    )
    stream_delay_seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Seconds for which a stream's first sound is held back, at most, so that the stream then plays "
        "without a gap on a host that makes an utterance slower than it plays; 0: it is sent as soon as it is made.",
    )
    stream_first_tokens: int = Field(
        25,
        ge=0,
        le=1000,
        description="Speech tokens (25 a second) after which a stream's first audio is made, before the rest of its "
        "segment, by an engine that can; 0: the first segment is made in one go.",
    )

    def first_piece_tokens(self, *, early_audio: bool) -> int | None:
        """The tokens of a stream's first piece, where the engine can hand one out early; None: there is none."""
        return (self.stream_first_tokens or None) if early_audio else None
