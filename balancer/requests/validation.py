"""From a well-formed body to a SpeechRequest: model, voice, length and parameters against what runs here.

Called by the routes; what is refused here never reaches a worker.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from math import nan

from balancer.errors import InvalidRequestError, ModelNotFoundError
from balancer.requests.bodies import OpenAISpeechBody, TtsBody
from balancer.requests.speech_request import SpeechRequest
from voices.registry import LiveRegistry, Registry, UnknownVoiceError, Voice
from worker.cards import Choice, EngineCard, Parameter
from worker.contract import ParameterValue

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Names that OpenAI's clients have hard-coded; each means the engine that runs."""

_LANGUAGE = "language"
_LANGUAGE_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{2,8})*")
"""A language, perhaps with a script, region or the like: `en`, `en-gb`, `pt_br`, `zh-hans-cn`."""


@dataclass(frozen=True)
class RequestValidator:
    """The checks for one engine and one set of voices."""

    card: EngineCard
    voices: Registry | LiveRegistry
    max_characters: int

    @property
    def models(self) -> tuple[str, ...]:
        """Every accepted model name."""
        return (self.card.name, *OPENAI_MODELS)

    @property
    def longest_text(self) -> int:
        """Most characters of one request's text."""
        return min(self.max_characters, self.card.longest_text or self.max_characters)

    @property
    def speakable(self) -> tuple[Voice, ...]:
        """The voices that this engine can speak, by name."""
        return tuple(voice for voice in self.voices if self._fits(voice))

    def validate(self, body: OpenAISpeechBody | TtsBody) -> SpeechRequest:
        """The request that a body asks for. Raises InvalidRequestError, ModelNotFoundError."""
        if body.model is not None and body.model not in self.models:
            raise ModelNotFoundError(
                f"there is no model {body.model!r} here; there are: {', '.join(self.models)}", param="model"
            )
        self._check_length(body)
        voice = self.voice_of(body)
        return SpeechRequest(
            text=body.spoken_text,
            text_field=body.text_field,
            voice=voice,
            parameters=self._parameters(body, voice),
            seed=secrets.randbits(32) if body.seed is None else body.seed,
            seeded=body.seed is not None,
            format=body.audio_format,
            speed=body.speed,
            priority=body.priority,
            deadline_ms=body.deadline_ms,
        )

    def voice_of(self, body: OpenAISpeechBody | TtsBody) -> Voice:
        """The voice that a body asks for. Raises InvalidRequestError."""
        return self._voice(*body.chosen_voice)

    def _check_length(self, body: OpenAISpeechBody | TtsBody) -> None:
        length, limit = len(body.spoken_text), self.longest_text
        if length <= limit:
            return
        why = f"the limit is {limit}"
        if limit == self.card.longest_text:
            why = (
                f"engine {self.card.name!r} speaks at most {limit} in one utterance: "
                "split the text into several requests"
            )
        raise InvalidRequestError(
            f"{body.text_field} has {length} characters; {why}", param=body.text_field, code="text_too_long"
        )

    def _fits(self, voice: Voice) -> bool:
        return voice.fits(self.card.name, clones_voices=self.card.clones_voices)

    def _voice(self, field: str, name: str) -> Voice:
        try:
            voice = self.voices.resolve(name)
        except UnknownVoiceError as error:
            raise InvalidRequestError(str(error), param=field, code="voice_not_found") from error
        if not self._fits(voice):
            usable = ", ".join(voice.name for voice in self.speakable)
            raise InvalidRequestError(
                f"engine {self.card.name!r} cannot speak voice {name!r}; it can speak: {usable}",
                param=field,
                code="voice_not_supported",
            )
        return voice

    def _parameters(self, body: OpenAISpeechBody | TtsBody, voice: Voice) -> dict[str, ParameterValue]:
        """What the worker is told: the voice's own parameters, the request's before them, and always the language."""
        field, _ = body.chosen_voice
        given = {name: self._given(name, value, body) for name, value in body.extras.items()}
        parameters = {**self._defaults(voice, field), **given}
        language = self.card.parameter(_LANGUAGE)
        if isinstance(language, Choice) and _LANGUAGE not in parameters:
            parameters[_LANGUAGE] = self._own_language(voice, language)
        return parameters

    def _defaults(self, voice: Voice, field: str) -> dict[str, ParameterValue]:
        """The voice's own parameters, as far as this engine has them: one voice may serve several engines."""
        own = ((self.card.parameter(name), value) for name, value in voice.parameters.items())
        try:
            return {parameter.name: _fitting(parameter, value) for parameter, value in own if parameter is not None}
        except ValueError as error:
            raise InvalidRequestError(
                f"voice {voice.name!r} cannot be used with engine {self.card.name!r}: in its voice.toml, {error}",
                param=field,
                code="voice_not_supported",
            ) from error

    def _given(self, name: str, value: object, body: OpenAISpeechBody | TtsBody) -> ParameterValue:
        parameter = self.card.parameter(name)
        if parameter is None:
            own = ", ".join(parameter.name for parameter in self.card.parameters) or "none"
            raise InvalidRequestError(
                f"unknown field {name!r}; this request takes {', '.join(_names(body))}, "
                f"and the parameters of engine {self.card.name!r}: {own}",
                param=name,
                code="unknown_parameter",
            )
        try:
            return _fitting(parameter, value)
        except ValueError as error:
            raise InvalidRequestError(str(error), param=name, code="invalid_parameter") from error

    def _own_language(self, voice: Voice, language: Choice) -> str:
        try:
            return _chosen(language, voice.language)
        except ValueError as error:
            raise InvalidRequestError(
                f"voice {voice.name!r} speaks {voice.language!r}, which engine {self.card.name!r} does not: "
                f"send {_LANGUAGE}, one of {', '.join(language.choices)}",
                param=_LANGUAGE,
                code="invalid_parameter",
            ) from error


def _names(body: OpenAISpeechBody | TtsBody) -> list[str]:
    """Of the declared fields, as clients write them."""
    return [field.alias or name for name, field in type(body).model_fields.items()]


def _fitting(parameter: Parameter | Choice, value: object) -> ParameterValue:
    """The value as the worker gets it. Raises ValueError, saying what would fit."""
    return _chosen(parameter, value) if isinstance(parameter, Choice) else _within(parameter, value)


def _chosen(choice: Choice, value: object) -> str:
    word = value.lower() if isinstance(value, str) else ""
    if choice.name == _LANGUAGE and (tag := _LANGUAGE_TAG.fullmatch(word)):
        word = tag[1]
    for known in choice.choices:
        if word == known.lower():
            return known
    raise ValueError(f"{choice.name} must be one of {', '.join(choice.choices)}")


def _within(parameter: Parameter, value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else nan
    whole = isinstance(number, int)
    # A NaN is within no range.
    if parameter.minimum <= number <= parameter.maximum and (whole or not parameter.integer):
        # An engine's libraries may tell 1 from 1.0.
        return number if parameter.integer else float(number)
    kind = "a whole number" if parameter.integer else "a number"
    raise ValueError(f"{parameter.name} must be {kind} from {parameter.minimum:g} to {parameter.maximum:g}")
