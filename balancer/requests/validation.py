"""Validation of a body against the running engine and the voices: model, voice, text, parameters.

The routes and the job executor call it. A request that is refused here never reaches a worker.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from functools import cached_property
from math import nan

from balancer.errors import InvalidRequestError, ModelNotFoundError, QueueFullError
from balancer.requests.bodies import OpenAISpeechBody, TtsBody
from balancer.requests.speech_request import DEFAULT_LANGUAGE, SpeechRequest
from balancer.requests.text_preparation import TextPreparation
from balancer.runtime.thread_pool import PoolFullError, ThreadPool
from voices.registry import LiveRegistry, Registry, UnknownVoiceError, Voice
from worker.cards import CARDS, Choice, EngineCard, Parameter
from worker.contract import ParameterValue

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Model names that OpenAI's clients send; each selects the running engine."""

_DATED_MODEL = re.compile(rf"(?:{'|'.join(map(re.escape, OPENAI_MODELS))})-(?:\d{{4}}-\d{{2}}-\d{{2}}|\d{{4}})")
"""Names of snapshots of those models, such as `gpt-4o-mini-tts-2025-12-15` and `tts-1-1106`."""

MAX_LOOP_CHARACTERS = 300
"""Requests with longer texts are validated in a thread: their preparation would keep the event loop for over 2 ms."""

MAX_WAITING_TEXTS = 1000
RETRY_SECONDS = 1.0
"""Retry-After of a text that was refused since that many wait for the thread."""

VOICE_NOT_FOUND = "voice_not_found"
"""Code of the error."""

FOREIGN_FIELDS = frozenset(
    {"user", "lang_code", "language", "volume_multiplier", "download_format", "speaker", "return_download_link"}
    | {"normalization_options", "return_timing", "voice_aliases", "streaming_chunk_size", "streaming_strategy"}
    | {parameter.name for card in CARDS.values() for parameter in card.parameters}
)
"""Fields of OpenAI's API, of its other servers and of other engines, which their clients send to each of them."""

_LANGUAGE = "language"
_LANGUAGE_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{2,8})*")
"""A language tag with optional subtags for script and region: `en`, `en-gb`, `pt_br`, `zh-hans-cn`."""


@dataclass(frozen=True)
class RequestValidator:
    """Validates bodies for one engine and one set of voices. A text has at most `max_characters` characters."""

    card: EngineCard
    voices: Registry | LiveRegistry
    max_characters: int
    normalize: bool = True
    """Whether texts are normalized where a request does not say."""

    @cached_property
    def _preparation(self) -> TextPreparation:
        return TextPreparation(self.card, self.max_characters, self.normalize)

    @cached_property
    def _pool(self) -> ThreadPool:
        return ThreadPool("texts", 1, max_waiting=MAX_WAITING_TEXTS)

    @property
    def models(self) -> tuple[str, ...]:
        """The model names that are offered."""
        return (self.card.name, *OPENAI_MODELS)

    def knows_model(self, name: str) -> bool:
        """Whether a model name is accepted: one of `models`, or a dated one of OpenAI's."""
        return name in self.models or _DATED_MODEL.fullmatch(name) is not None

    @property
    def supported_voices(self) -> tuple[Voice, ...]:
        """The voices that this engine can synthesize, ordered by name."""
        return tuple(voice for voice in self.voices if self._supports(voice))

    def validate(self, body: OpenAISpeechBody | TtsBody) -> SpeechRequest:
        """The speech request of a body; its seed is random if the body has none.

        Raises InvalidRequestError, ModelNotFoundError.
        """
        self.check_model(body)
        self._check_length(body)
        voice = self.voice_of(body)
        parameters = self._parameters(body, voice)
        language = str(parameters.get(_LANGUAGE, DEFAULT_LANGUAGE))
        spoken = self._preparation.spoken(body, language)
        return SpeechRequest(
            text=spoken.plain,
            language=language,
            pauses=spoken.pauses,
            characters=len(body.spoken_text),
            text_field=body.text_field,
            voice=voice,
            parameters=parameters,
            seed=secrets.randbits(32) if body.seed is None else body.seed,
            seeded=body.seed is not None,
            format=body.audio_format,
            speed=body.speed,
            priority=body.priority,
            deadline_ms=body.deadline_ms,
        )

    async def validate_for_client(self, body: OpenAISpeechBody | TtsBody) -> SpeechRequest:
        """The same as `validate`. A voice that is not known is looked for in the folder of voices once more.

        Raises QueueFullError, too, if too many long texts wait.
        """
        if len(body.spoken_text) > MAX_LOOP_CHARACTERS:
            try:
                return await self._pool.run(lambda: self.validate_blocking(body))
            except PoolFullError as error:
                raise QueueFullError(
                    "too many long texts are being prepared; try again later", retry_after=RETRY_SECONDS
                ) from error
        try:
            return self.validate(body)
        except InvalidRequestError as error:
            if error.code != VOICE_NOT_FOUND or not isinstance(self.voices, LiveRegistry):
                raise
        await self.voices.rescan()
        return self.validate(body)

    def validate_blocking(self, body: OpenAISpeechBody | TtsBody) -> SpeechRequest:
        """The same for a thread that may wait for the folder."""
        try:
            return self.validate(body)
        except InvalidRequestError as error:
            if error.code != VOICE_NOT_FOUND or not isinstance(self.voices, LiveRegistry):
                raise
        self.voices.rescan_blocking()
        return self.validate(body)

    def voice_of(self, body: OpenAISpeechBody | TtsBody) -> Voice:
        """The voice that a body chooses. Raises InvalidRequestError."""
        return self._resolve(*body.chosen_voice)

    def check_model(self, body: OpenAISpeechBody | TtsBody) -> None:
        """Raise ModelNotFoundError if the body asks for a model that is not offered."""
        if body.model is not None and not self.knows_model(body.model):
            raise ModelNotFoundError(
                f"there is no model {body.model!r} here; there are: {', '.join(self.models)}", param="model"
            )

    def ignored_fields(self, body: OpenAISpeechBody | TtsBody) -> list[str]:
        """The fields of a body that are known to mean nothing to this engine, and are left out."""
        if not body.takes_foreign_fields:
            return []
        return [name for name in body.extras if name in FOREIGN_FIELDS and self.card.parameter(name) is None]

    def _check_length(self, body: OpenAISpeechBody | TtsBody) -> None:
        length = len(body.spoken_text)
        if length > self.max_characters:
            raise InvalidRequestError(
                f"{body.text_field} has {length} characters; the limit is {self.max_characters}",
                param=body.text_field,
                code="text_too_long",
            )

    def _supports(self, voice: Voice) -> bool:
        return voice.fits(self.card.name, clones_voices=self.card.clones_voices)

    def _resolve(self, field: str, name: str) -> Voice:
        try:
            voice = self.voices.resolve(name)
        except UnknownVoiceError as error:
            raise InvalidRequestError(str(error), param=field, code=VOICE_NOT_FOUND) from error
        if not self._supports(voice):
            supported = ", ".join(voice.name for voice in self.supported_voices)
            raise InvalidRequestError(
                f"engine {self.card.name!r} cannot speak voice {name!r}; it can speak: {supported}",
                param=field,
                code="voice_not_supported",
            )
        return voice

    def _parameters(self, body: OpenAISpeechBody | TtsBody, voice: Voice) -> dict[str, ParameterValue]:
        """Parameters for the worker: the request's, else the voice's. The language is always set if there is one."""
        field, _ = body.chosen_voice
        ignored = self.ignored_fields(body)
        requested = {
            name: self._requested(name, value, body) for name, value in body.extras.items() if name not in ignored
        }
        parameters = {**self._voice_parameters(voice, field), **requested}
        language = self.card.parameter(_LANGUAGE)
        if isinstance(language, Choice) and _LANGUAGE not in parameters:
            parameters[_LANGUAGE] = self._voice_language(voice, language)
        return parameters

    def _voice_parameters(self, voice: Voice, field: str) -> dict[str, ParameterValue]:
        """The voice's parameters that this engine has: one voice may serve several engines."""
        own = ((self.card.parameter(name), value) for name, value in voice.parameters.items())
        try:
            return {parameter.name: _converted(parameter, value) for parameter, value in own if parameter is not None}
        except ValueError as error:
            raise InvalidRequestError(
                f"voice {voice.name!r} cannot be used with engine {self.card.name!r}: in its voice.toml, {error}",
                param=field,
                code="voice_not_supported",
            ) from error

    def _requested(self, name: str, value: object, body: OpenAISpeechBody | TtsBody) -> ParameterValue:
        parameter = self.card.parameter(name)
        if parameter is None:
            known = ", ".join(parameter.name for parameter in self.card.parameters) or "none"
            raise InvalidRequestError(
                f"unknown field {name!r}; this request takes {', '.join(_declared_fields(body))}, "
                f"and the parameters of engine {self.card.name!r}: {known}",
                param=name,
                code="unknown_parameter",
            )
        try:
            return _converted(parameter, value)
        except ValueError as error:
            raise InvalidRequestError(str(error), param=name, code="invalid_parameter") from error

    def _voice_language(self, voice: Voice, language: Choice) -> str:
        """The language of a text that names none: the engine's only one, or else the voice's."""
        if language.only is not None:
            return language.only
        try:
            return _converted_choice(language, voice.language)
        except ValueError as error:
            raise InvalidRequestError(
                f"voice {voice.name!r} speaks {voice.language!r}, which engine {self.card.name!r} does not: "
                f"send {_LANGUAGE}, one of {', '.join(language.choices)}",
                param=_LANGUAGE,
                code="invalid_parameter",
            ) from error


def _declared_fields(body: OpenAISpeechBody | TtsBody) -> list[str]:
    """Names of the declared fields, as clients write them."""
    return [field.alias or name for name, field in type(body).model_fields.items()]


def _converted(parameter: Parameter | Choice, value: object) -> ParameterValue:
    """The value in the type that the worker expects. Raises ValueError, which names the accepted values."""
    return _converted_choice(parameter, value) if isinstance(parameter, Choice) else _converted_number(parameter, value)


def _converted_choice(choice: Choice, value: object) -> str:
    word = value.lower() if isinstance(value, str) else ""
    if choice.name == _LANGUAGE and (tag := _LANGUAGE_TAG.fullmatch(word)):
        word = tag[1]
    for known in choice.choices:
        if word == known.lower():
            return known
    raise ValueError(f"{choice.name} must be one of {', '.join(choice.choices)}")


def _converted_number(parameter: Parameter, value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else nan
    whole = isinstance(number, int)
    # NaN compares false, so it is outside every range.
    if parameter.minimum <= number <= parameter.maximum and (whole or not parameter.integer):
        # Libraries of an engine may treat 1 and 1.0 differently.
        return number if parameter.integer else float(number)
    kind = "a whole number" if parameter.integer else "a number"
    raise ValueError(f"{parameter.name} must be {kind} from {parameter.minimum:g} to {parameter.maximum:g}")
