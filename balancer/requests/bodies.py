"""The bodies that the HTTP surfaces take, and the one request that they all become."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from balancer.audio.formats import AudioFormat
from balancer.scheduling.priority import Priority

DEFAULT_VOICE = "default"

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but for tab and line breaks, and surrogates without their other half."""

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def _printable(value: object) -> object:
    if isinstance(value, str) and (found := _UNPRINTABLE.search(value)):
        character, position = found[0], found.start()
        if unicodedata.category(character) == "Cs":
            raise ValueError(f"a lone surrogate at character {position}; send well-formed Unicode")
        raise ValueError(f"a control character (U+{ord(character):04X}) at character {position}; remove it")
    return value


def _speakable(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; send some text to speak")
    if not _LETTER_OR_DIGIT.search(text):
        raise ValueError("has no letter or digit, so there is nothing to speak")
    return text


def _by_id(value: object) -> object:
    """OpenAI's way to name a custom voice is `{"id": name}`."""
    if not isinstance(value, dict):
        return value
    if value.keys() != {"id"}:
        raise ValueError('must be a name, or an object {"id": name}')
    return value["id"]


Line = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(_printable)]
Text = Annotated[str, BeforeValidator(_printable), AfterValidator(_speakable)]
Format = Annotated[AudioFormat, Field(strict=False, description="Format of the audio."), BeforeValidator(_printable)]
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
    """Fields beyond the declared ones are the engine's parameters, checked against what it has."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)

    speed: Annotated[float, Field(ge=0.25, le=4.0, description="Tempo; the pitch stays.")] = 1.0
    seed: Annotated[
        int | None, Field(ge=0, lt=2**32, description="Makes the audio reproducible; random if left out.")
    ] = None
    priority: Annotated[
        Priority, Field(strict=False, description="batch: takes only what interactive work leaves over.")
    ] = Priority.INTERACTIVE
    deadline_ms: Annotated[
        float | None,
        Field(
            gt=0,
            description="Milliseconds after which the audio is of no use: what cannot be done by then is refused at "
            "once. The header X-Deadline-Ms says the same; the earlier one counts.",
        ),
    ] = None

    @property
    def extras(self) -> dict[str, Any]:
        """The undeclared fields."""
        return self.model_extra or {}


class OpenAISpeechBody(_Body):
    """Body of `POST /v1/audio/speech`."""

    text_field: ClassVar[str] = "input"

    model: Annotated[Line, Field(description="The running engine's name, or one of OpenAI's.")]
    input: Annotated[Text, Field(description="The text to speak.")]
    voice: Annotated[VoiceName, Field(description="A voice's name or alias.")]
    response_format: Format = AudioFormat.MP3
    stream_format: Annotated[Literal["audio"], Field(description="The answer is the audio itself.")] = "audio"

    @property
    def spoken_text(self) -> str:
        """The text to speak."""
        return self.input

    @property
    def chosen_voice(self) -> tuple[str, str]:
        """The field that names the voice, and the name."""
        return "voice", self.voice

    @property
    def audio_format(self) -> AudioFormat:
        """The format to answer in."""
        return self.response_format


class TtsBody(_Body):
    """Body of `POST /tts` and `POST /tts-json`."""

    text_field: ClassVar[str] = "text"

    text: Annotated[Text, Field(description="The text to speak.")]
    character: Annotated[Line | None, Field(description="A voice's name or alias; left out: `default`.")] = None
    voice: Annotated[Line | None, Field(description="The same as character; send one of them.")] = None
    model: Annotated[Line | None, Field(description="The running engine's name, or one of OpenAI's.")] = None
    format: Format = AudioFormat.WAV

    @field_validator("voice")
    @classmethod
    def _one_voice(cls, voice: str | None, others: ValidationInfo) -> str | None:
        if voice is not None and others.data.get("character") not in (None, voice):
            raise ValueError("is not the same as character; send one of them")
        return voice

    @property
    def spoken_text(self) -> str:
        """The text to speak."""
        return self.text

    @property
    def chosen_voice(self) -> tuple[str, str]:
        """The field that names the voice, and the name."""
        return ("voice", self.voice) if self.voice is not None else ("character", self.character or DEFAULT_VOICE)

    @property
    def audio_format(self) -> AudioFormat:
        """The format to answer in."""
        return self.format


class QueueBody(TtsBody):
    """Body of `POST /queue`, and a line of `POST /queue/batch`."""

    user_id: Annotated[Line | None, Field(alias="userId", description="Yours: told back with the job.")] = None
    webhook: Annotated[
        Annotated[str, Field(max_length=2000)] | None,
        BeforeValidator(_printable),
        Field(description="Told, by a signed POST, when the job has ended."),
    ] = None
    idempotency_key: Annotated[
        Line | None,
        Field(alias="idempotencyKey", description="A second request with the same key is the first job again."),
    ] = None

    @property
    def as_sent(self) -> dict[str, Any]:
        """The body as it came."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @property
    def request(self) -> dict[str, Any]:
        """What is to be spoken, as a body of `POST /tts`."""
        return self.model_dump(mode="json", exclude={"user_id", "webhook", "idempotency_key"}, exclude_unset=True)
