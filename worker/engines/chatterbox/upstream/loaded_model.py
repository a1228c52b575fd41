"""A Chatterbox model in memory: what the stock and the batched engine both need of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from worker.cards import CARDS, Choice, FlowModel, Parameter
from worker.contract import ParameterValue, Utterance
from worker.engines.base import UnspeakableError, VoiceSource
from worker.engines.chatterbox.token_budget import MAX_TOKENS, token_budget
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.conditionals import ConditionalsCache, ConditionalTensors, to_upstream
from worker.engines.chatterbox.upstream.loading import VARIANTS, load
from worker.stage_timer import StageTimer

MIN_CFG_WEIGHT = 1e-6
"""Replaces a guidance weight of 0, at which the Original's decode loop fails: it has one row of text then, but two of
speech."""


class LoadedModel:
    """The upstream object of one model, its card, and the conditionals of the prepared voices.

    `checkpoint` is the folder of the weights, `cache` the folder for conditionals. Raises ModelUnavailableError where
    the checkpoint, or the flow, does not load.
    """

    def __init__(self, name: str, checkpoint: Path, cache: Path, flow: FlowModel = FlowModel.UPSTREAM) -> None:
        self._flow = flow
        self.card = CARDS[name]
        self.variant = VARIANTS[name]
        self._checkpoint = checkpoint
        patches.install()
        with patches.muted():
            self.upstream: Any = load(name, checkpoint, flow)
        self.timer = StageTimer()
        patches.time_stages(self.upstream, self.timer)
        self.conditionals_cache = ConditionalsCache(self.upstream, self.variant, checkpoint, cache)
        self.prepared: dict[str, ConditionalTensors] = {}
        """Conditionals by name of the voice."""

    @property
    def description(self) -> str:
        """The model and the folder of its weights, for operators."""
        flow = "" if self._flow is FlowModel.UPSTREAM else f" with {self._flow}"
        return f"{self.card.name}{flow} from {self._checkpoint}"

    def prepare(self, source: VoiceSource) -> None:
        """Load or compute a voice's conditionals. Raises VoiceUnusableError."""
        with torch.inference_mode(), patches.muted():
            if source.reference is None:
                tensors = self.conditionals_cache.built_in()
            else:
                tensors = self.conditionals_cache.of_clip(source.reference)
        self.prepared[source.voice.name] = tensors

    def conditionals(self, voice: str) -> Any:
        """A new `Conditionals` object of upstream's for one utterance in a prepared voice."""
        return to_upstream(self.prepared[voice], self.variant)

    def token_budget(self, utterance: Utterance) -> int:
        """The most speech tokens that an utterance may take, by its text and its own limit."""
        return min(token_budget(utterance.text), utterance.token_budget or MAX_TOKENS)

    def arguments(self, utterance: Utterance, source: VoiceSource) -> dict[str, ParameterValue]:
        """Keyword arguments of upstream's `generate` for an utterance's parameters, with the card's defaults.

        Raises UnspeakableError where the model does not speak the language.
        """
        arguments: dict[str, ParameterValue] = {}
        for parameter in self.card.parameters:
            if isinstance(parameter, Parameter):
                value = float(utterance.parameters.get(parameter.name, parameter.default))
                # Upstream's samplers accept 1.0 where they refuse 1.
                arguments[parameter.name] = int(value) if parameter.integer else value
        if isinstance(choice := self.card.parameter("language"), Choice):
            arguments["language_id"] = _language(choice, utterance, source)
        if "cfg_weight" in arguments:
            arguments["cfg_weight"] = max(MIN_CFG_WEIGHT, float(arguments["cfg_weight"]))
        return arguments


def _language(choice: Choice, utterance: Utterance, source: VoiceSource) -> str:
    """The language of an utterance: its own, or else the model's only one, or the voice's."""
    default = choice.only or source.voice.language.partition("-")[0]
    language = str(utterance.parameters.get(choice.name, default))
    if language.lower() not in choice.choices:
        raise UnspeakableError(f"this engine does not speak {language!r}; it speaks: {', '.join(choice.choices)}")
    return language
