"""The request bodies of the HTTP API. They check what needs no knowledge of the engine and its voices."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from balancer.audio.formats import AudioFormat
from balancer.scheduling.priority import Priority
from voices.names import name_key

DEFAULT_VOICE = "default"

MAX_INSTRUCTIONS = 4096
"""Characters of `instructions`, at most: OpenAI's own limit."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than tab and line breaks, and lone surrogates."""

_UNREADABLE = re.compile(r"[\x00\ud800-\udfff]")
"""NUL and lone surrogates: no text has them. Other control characters of a text are white space or dropped."""

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def printable(value: object) -> object:
    """The value, if it is no text with control characters other than tab and line breaks. Raises ValueError."""
    return _without(_UNPRINTABLE, value)


def _readable(value: object) -> object:
    return _without(_UNREADABLE, value)


def _without(refused: re.Pattern[str], value: object) -> object:
    if isinstance(value, str) and (found := refused.search(value)):
        character, position = found[0], found.start()
        if unicodedata.category(character) == "Cs":
            raise ValueError(f"a lone surrogate at character {position}; send well-formed Unicode")
        raise ValueError(f"a control character (U+{ord(character):04X}) at character {position}; remove it")
    return value


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; send some text to speak")
    return text


def _speakable(text: str) -> str:
    if not _LETTER_OR_DIGIT.search(text):
        raise ValueError("has no letter or digit, so there is nothing to speak")
    return text


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _by_id(value: object) -> object:
    """Accept `{"id": name}` for a voice's name, as OpenAI's API does for custom voices."""
    if not isinstance(value, dict):
        return value
    if value.keys() != {"id"}:
        raise ValueError('must be a name, or an object {"id": name}')
    return value["id"]


class StreamFormat(StrEnum):
    """The content of an answer."""

    AUDIO = "audio"
    SSE = "sse"
    """Server-sent events, with the audio in base64."""


Line = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(printable)]
PunctuatedText = Annotated[str, BeforeValidator(_readable), AfterValidator(_not_empty)]
Text = Annotated[PunctuatedText, AfterValidator(_speakable)]
Format = Annotated[
    AudioFormat,
    Field(strict=False, description="Format of the audio."),
    BeforeValidator(_lower),
    BeforeValidator(printable),
]
VoiceName = Annotated[
    Line,
    BeforeValidator(_by_id),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
            ]
        }
    ),
]


class _Body(BaseModel):
    """The fields that all bodies have. Undeclared fields are parameters of the engine; RequestValidator checks them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)

    speed: Annotated[
        float, Field(ge=0.25, le=4.0, description="Tempo of the speech; it does not change the pitch.")
    ] = 1.0
    seed: Annotated[
        int | None,
        Field(ge=0, lt=2**32, description="The same seed gives the same audio; random if omitted."),
    ] = None
    priority: Annotated[
        Priority,
        Field(strict=False, description="`batch` uses slots that `interactive` requests leave idle."),
    ] = Priority.INTERACTIVE
    deadline_ms: Annotated[
        float | None,
        Field(
            gt=0,
            description="Time limit in milliseconds from the request's arrival; a request that cannot be answered in "
            "time is refused at once. The header X-Deadline-Ms does the same; the shorter limit applies.",
        ),
    ] = None

    normalize: Annotated[
        bool | None,
        Field(
            description="Whether markup, numbers, dates, units, abbreviations and the like in the text are said as "
            "they are meant; `false` gives the text to the engine as it is. The server's setting if omitted.",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        """A field that is null is left out, as clients mean it that send all of their fields."""
        if not isinstance(fields, dict) or None not in fields.values():
            return fields
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def extras(self) -> dict[str, Any]:
        """The undeclared fields, by name."""
        return self.model_extra or {}


class OpenAISpeechBody(_Body):
    """Body of `POST /v1/audio/speech`."""

    text_field: ClassVar[str] = "input"
    """Name of the field with the text, for error messages."""
    takes_foreign_fields: ClassVar[bool] = True
    """Whether fields that other servers of this API have are left out, not refused."""

    model: Annotated[Line | None, Field(description="Name of the running engine, or of one of OpenAI's models.")] = None
    input: Annotated[
        PunctuatedText, Field(description="The text to synthesize; one without letters and digits is silence.")
    ]
    voice: Annotated[VoiceName, Field(description="Name or alias of a voice.")] = DEFAULT_VOICE
    response_format: Format = AudioFormat.MP3
    instructions: Annotated[
        Annotated[str, Field(max_length=MAX_INSTRUCTIONS)] | None,
        BeforeValidator(_readable),
        Field(description="How to speak, for OpenAI's clients. Accepted, and not followed by any engine yet."),
    ] = None
    stream: Annotated[
        bool, Field(description="Whether the audio is sent while it is made, where it is made in several pieces.")
    ] = True
    stream_format: Annotated[
        StreamFormat,
        Field(strict=False, description="`audio`: the response body is the audio; `sse`: events with pieces of it."),
        BeforeValidator(printable),
    ] = StreamFormat.AUDIO

    @property
    def silent(self) -> bool:
        """Whether the text says nothing: clients try a key with `.`, and expect audio."""
        return _LETTER_OR_DIGIT.search(self.input) is None

    @property
    def spoken_text(self) -> str:
        """The text to synthesize."""
        return self.input

    @property
    def chosen_voice(self) -> tuple[str, str]:
        """The name of the field that chooses the voice, and the voice's name or alias."""
        return "voice", self.voice

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the response's audio."""
        return self.response_format


class TtsBody(_Body):
    """Body of `POST /tts` and `POST /tts-json`."""

    text_field: ClassVar[str] = "text"
    takes_foreign_fields: ClassVar[bool] = False

    text: Annotated[Text, Field(description="The text to synthesize.")]
    character: Annotated[Line | None, Field(description="Name or alias of a voice; `default` if omitted.")] = None
    voice: Annotated[Line | None, Field(description="An alternative to `character`; send only one of them.")] = None
    model: Annotated[Line | None, Field(description="Name of the running engine, or of one of OpenAI's models.")] = None
    format: Format = AudioFormat.WAV
    stream: Annotated[
        bool, Field(description="Whether `POST /tts` sends the audio while it is made, if it is made in pieces.")
    ] = False
    stream_format: ClassVar[StreamFormat] = StreamFormat.AUDIO
    silent: ClassVar[bool] = False

    @field_validator("voice")
    @classmethod
    def _one_voice(cls, voice: str | None, others: ValidationInfo) -> str | None:
        character = others.data.get("character")
        if voice is not None and character is not None and name_key(character) != name_key(voice):
            raise ValueError("differs from character; send only one of them")
        return voice

    @property
    def spoken_text(self) -> str:
        """The text to synthesize."""
        return self.text

    @property
    def chosen_voice(self) -> tuple[str, str]:
        """The name of the field that chooses the voice, and the voice's name or alias."""
        return ("voice", self.voice) if self.voice is not None else ("character", self.character or DEFAULT_VOICE)

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the response's audio."""
        return self.format


MAX_LINK_SECONDS = 86_400


class LinkBody(TtsBody):
    """Body of `POST /tts/link`."""

    expires_seconds: Annotated[
        int, Field(alias="expiresSeconds", ge=1, le=MAX_LINK_SECONDS, description="Seconds for which the link works.")
    ] = 300

    @property
    def request(self) -> dict[str, Any]:
        """The part of the body that is a body of `POST /tts`."""
        return self.model_dump(mode="json", exclude={"expires_seconds"}, exclude_unset=True)


class QueueBody(TtsBody):
    """Body of `POST /queue`, and a line of `POST /queue/batch`."""

    user_id: Annotated[
        Line | None, Field(alias="userId", description="An identifier of your own, returned with the job.")
    ] = None
    webhook: Annotated[
        Annotated[str, Field(max_length=2000)] | None,
        BeforeValidator(printable),
        Field(description="URL that gets a signed POST when the job has ended."),
    ] = None
    idempotency_key: Annotated[
        Line | None,
        Field(alias="idempotencyKey", description="A second request with the same key returns the first job."),
    ] = None

    @field_validator("stream")
    @classmethod
    def _whole(cls, stream: bool) -> bool:
        if stream:
            raise ValueError("a job is made whole; leave it out, or send the text to POST /tts")
        return stream

    @property
    def as_sent(self) -> dict[str, Any]:
        """The body as the client sent it."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @property
    def request(self) -> dict[str, Any]:
        """The part of the body that is a body of `POST /tts`."""
        return self.model_dump(mode="json", exclude={"user_id", "webhook", "idempotency_key"}, exclude_unset=True)
