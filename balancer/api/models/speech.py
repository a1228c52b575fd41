"""JSON responses with audio, links to it, and the segments of a text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from balancer.api.models.camel_case import CAMEL_CASE
from balancer.requests.cache_control import CacheOutcome
from balancer.speech.results import Audio


class TtsJson(BaseModel):
    """The response of `POST /tts-json`."""

    model_config = CAMEL_CASE

    audio: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
    format: str
    mime_type: str
    sample_rate: Annotated[int, Field(description="Sample rate in Hz.")]
    duration: Annotated[float, Field(description="Length of the audio in seconds.")]
    character: Annotated[str, Field(description="The requested voice.")]
    cached: Annotated[bool, Field(description="Whether the audio came from the cache.")]
    request_id: str

    @classmethod
    def of(cls, audio: Audio, *, character: str, request_id: str) -> TtsJson:
        """The response but for its audio, which `JsonAudioResponse` sends in pieces."""
        # Not validated: nothing here comes from outside.
        return cls.model_construct(
            audio="",
            format=audio.format.value,
            mime_type=audio.format.media_type,
            sample_rate=audio.sample_rate,
            duration=round(audio.seconds, 3),
            character=character,
            cached=audio.outcome is CacheOutcome.HIT,
            request_id=request_id,
        )


class Link(BaseModel):
    """The response of `POST /tts/link`."""

    model_config = CAMEL_CASE

    url: Annotated[str, Field(description="Where the audio can be fetched without an API key.")]
    expires_at: Annotated[
        str, Field(json_schema_extra={"format": "date-time"}, description="When the link ceases to work.")
    ]


class SpeechAudioDelta(BaseModel):
    """An event of a stream: the next piece of its audio."""

    type: Literal["speech.audio.delta"]
    audio: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class SpeechUsage(BaseModel):
    """The cost of a stream, in OpenAI's fields."""

    input_tokens: Annotated[int, Field(description="Characters of the text.")]
    output_tokens: Annotated[int, Field(description="25 for each second of audio.")]
    total_tokens: int


class SpeechAudioDone(BaseModel):
    """The last event of a stream that is complete."""

    type: Literal["speech.audio.done"]
    usage: SpeechUsage


class SegmentPreview(BaseModel):
    """A part of a text that is spoken in one utterance."""

    model_config = CAMEL_CASE

    text: Annotated[str, Field(description="What is said: numbers and abbreviations in words, without markup.")]
    pause_seconds: Annotated[float, Field(description="The silence behind it.")]


class SegmentPreviews(BaseModel):
    """The segments of a text, and its expected length."""

    characters: Annotated[int, Field(description="Characters of the text as it was sent, which limits count.")]
    seconds: Annotated[float, Field(description="Length of the audio, about.")]
    segments: list[SegmentPreview]
