"""From a well-formed body to a SpeechRequest: model, voice, length and parameters against what runs here.

Called by the routes; what is refused here never reaches a worker.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from math import nan

from balancer.errors import InvalidRequestError, ModelNotFoundError
from balancer.schemas import OpenAISpeechBody, SpeechRequest, TtsBody
from voices.registry import Registry, UnknownVoiceError, Voice
from worker.cards import EngineCard, Parameter
from worker.contract import ParameterValue

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Names that OpenAI's clients have hard-coded; each means the engine that runs."""


@dataclass(frozen=True)
class Intake:
    """The checks for one engine and one set of voices."""

    card: EngineCard
    voices: Registry
    max_characters: int

    @property
    def models(self) -> tuple[str, ...]:
        """Every accepted model name."""
        return (self.card.name, *OPENAI_MODELS)

    @property
    def speakable(self) -> tuple[Voice, ...]:
        """The voices that this engine can speak, by name."""
        return tuple(voice for name in self.voices.names if self._fits(voice := self.voices.voices[name]))

    def accept(self, body: OpenAISpeechBody | TtsBody) -> SpeechRequest:
        """The request that a body asks for. Raises InvalidRequestError, ModelNotFoundError."""
        if body.model is not None and body.model not in self.models:
            raise ModelNotFoundError(
                f"there is no model {body.model!r} here; there are: {', '.join(self.models)}", param="model"
            )
        if len(body.words) > self.max_characters:
            raise InvalidRequestError(
                f"{body.words_field} has {len(body.words)} characters; the limit is {self.max_characters}",
                param=body.words_field,
                code="text_too_long",
            )
        voice = self._voice(*body.chosen_voice)
        return SpeechRequest(
            text=body.words,
            text_field=body.words_field,
            voice=voice,
            parameters={**self._defaults(voice), **self._parameters(body)},
            seed=secrets.randbits(32) if body.seed is None else body.seed,
            format=body.audio_format,
            speed=body.speed,
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

    def _defaults(self, voice: Voice) -> dict[str, ParameterValue]:
        """The voice's own parameters, as far as this engine has them: one voice may serve several engines."""
        return {name: value for name, value in voice.parameters.items() if self.card.parameter(name) is not None}

    def _parameters(self, body: OpenAISpeechBody | TtsBody) -> dict[str, ParameterValue]:
        return {name: self._parameter(name, value, body) for name, value in body.extras.items()}

    def _parameter(self, name: str, value: object, body: OpenAISpeechBody | TtsBody) -> ParameterValue:
        parameter = self.card.parameter(name)
        if parameter is None:
            own = ", ".join(parameter.name for parameter in self.card.parameters) or "none"
            raise InvalidRequestError(
                f"unknown field {name!r}; this request takes {', '.join(type(body).model_fields)}, "
                f"and the parameters of engine {self.card.name!r}: {own}",
                param=name,
                code="unknown_parameter",
            )
        return _within(parameter, value)


def _within(parameter: Parameter, value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else nan
    whole = isinstance(number, int)
    # A NaN is within no range.
    if parameter.minimum <= number <= parameter.maximum and (whole or not parameter.integer):
        return number
    kind = "a whole number" if parameter.integer else "a number"
    raise InvalidRequestError(
        f"{parameter.name} must be {kind} from {parameter.minimum:g} to {parameter.maximum:g}",
        param=parameter.name,
        code="invalid_parameter",
    )
