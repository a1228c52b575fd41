"""Prepares the texts of requests for one engine, by the text front end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from balancer.errors import InvalidRequestError
from balancer.requests.bodies import OpenAISpeechBody, TtsBody
from balancer.text.front_end import FrontEnd
from balancer.text.scripts import ForeignScriptError
from balancer.text.spoken_text import Span, SpokenText
from worker.cards import EngineCard

MAX_KEPT_TEXTS = 512
MAX_KEPT_CHARACTERS = 300
MAX_GROWTH = 6
"""A text may say so many times the characters that a request may have. Numbers and symbols in words are longer."""


@dataclass(frozen=True)
class TextPreparation:
    """Prepares texts for the engine of `card`. `normalize` is what counts for requests that do not say."""

    card: EngineCard
    max_characters: int
    normalize: bool = True

    @cached_property
    def _front_end(self) -> FrontEnd:
        return FrontEnd(self.card.tags)

    @cached_property
    def _prepared(self) -> Callable[[str, str], SpokenText]:
        """The spoken form of a short text in a language, which is kept: many requests are for the same texts."""
        return lru_cache(MAX_KEPT_TEXTS)(self._prepare)

    def _prepare(self, text: str, language: str) -> SpokenText:
        return self._front_end.prepare(text, language)

    def spoken(self, body: OpenAISpeechBody | TtsBody, language: str) -> SpokenText:
        """The spoken form of the text of a body. Raises InvalidRequestError."""
        normalize = self.normalize if body.normalize is None else body.normalize
        if not normalize:
            return SpokenText((Span(self._front_end.pass_through(body.spoken_text)),))
        try:
            short = len(body.spoken_text) <= MAX_KEPT_CHARACTERS
            spoken = (self._prepared if short else self._prepare)(body.spoken_text, language)
        except ForeignScriptError as error:
            raise InvalidRequestError(
                f"{body.text_field} {error}; send a text in that language, or ask for an engine or a language "
                "that fits",
                param=body.text_field,
                code="unsupported_script",
            ) from error
        if not spoken.plain:
            raise InvalidRequestError(
                f"{body.text_field} has nothing to speak: its markup and symbols say nothing",
                param=body.text_field,
                code="nothing_to_speak",
            )
        self._check_length(body, spoken.plain)
        return spoken

    def _check_length(self, body: OpenAISpeechBody | TtsBody, text: str) -> None:
        limit = MAX_GROWTH * self.max_characters
        if len(text) > limit:
            raise InvalidRequestError(
                f"{body.text_field} has {len(text)} characters with numbers and symbols in words; the limit is {limit}",
                param=body.text_field,
                code="text_too_long",
            )
