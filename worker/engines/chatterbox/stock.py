"""The stock engine: one utterance at a time through the `generate` of an upstream class."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from worker.cards import CARDS, EngineCard, Parameter
from worker.contract import ParameterValue, Utterance
from worker.engines.base import Cancellation, Samples, VoiceSource
from worker.engines.chatterbox.token_budget import MAX_TOKENS, token_budget
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.conditionals import Conditionals, Kept, fresh
from worker.engines.chatterbox.upstream.loading import MEMBERS, load
from worker.memory import trim_heap
from worker.stage_timer import StageTimer

log = logging.getLogger(__name__)

LEAST_CFG_WEIGHT = 1e-6
"""Stands for 0, at which the Original's decode loop fails: it then has one row of text beside two of speech."""


class StockEngine:
    """One model of the family. `checkpoint` is the folder of its weights, `cache` holds what is computed once."""

    def __init__(self, name: str, checkpoint: Path, cache: Path) -> None:
        self._member = MEMBERS[name]
        self._card = CARDS[name]
        self._checkpoint = checkpoint
        patches.settle()
        with patches.muted():
            self._model = load(name, checkpoint)
        self._stages = StageTimer()
        patches.staged(self._model, self._stages)
        self._conditionals = Conditionals(self._model, self._member, checkpoint, cache)
        self._prepared: dict[str, Kept] = {}
        self._cancellation = Cancellation()
        # Flow and vocoder take most of the time and have no loop to reach into, but they call these as they go.
        sound = self._model.s3gen
        blocks = [block[0] for block in sound.flow.decoder.estimator.mid_blocks]
        blocks += [module for module in sound.mel2wav.modules() if isinstance(module, torch.nn.Conv1d)]
        for block in blocks:
            block.register_forward_pre_hook(self._between_blocks)

    @property
    def card(self) -> EngineCard:
        """Name, sample rate and parameters."""
        return self._card

    @property
    def model(self) -> str:
        """The folder of the weights."""
        return f"{self._card.name} from {self._checkpoint}"

    @property
    def slots(self) -> int:
        """One: the model is not thread-safe and upstream's loop takes one utterance."""
        return 1

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds spent so far, by stage of the work."""
        return self._stages.seconds

    def prepare(self, source: VoiceSource) -> None:
        """Have the voice's conditionals in memory. Raises VoiceUnusableError."""
        with torch.inference_mode(), patches.muted():
            if source.reference is None:
                kept = self._conditionals.built_in()
            else:
                kept = self._conditionals.of_clip(source.reference)
        self._prepared[source.voice.name] = kept

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Speak the text whole: upstream makes the sound of all tokens at once."""
        budget = min(token_budget(utterance.text), utterance.token_budget or MAX_TOKENS)
        steps = patches.Steps(cancellation, budget)
        self._cancellation = cancellation
        try:
            # Without it the watermark would keep a graph of gradients with every utterance.
            with torch.inference_mode(), patches.muted(), patches.decoding(steps), self._as_before():
                self._model.conds = fresh(self._prepared[source.voice.name], self._member)
                # Upstream draws tokens and noise from torch's one generator.
                torch.manual_seed(utterance.seed)
                samples: Samples = self._model.generate(utterance.text, **self._arguments(utterance, source)).numpy()[0]
        finally:
            self._cancellation = Cancellation()
            trim_heap()
        yield samples

    def _arguments(self, utterance: Utterance, source: VoiceSource) -> dict[str, ParameterValue]:
        arguments: dict[str, ParameterValue] = {}
        for parameter in self._card.parameters:
            if isinstance(parameter, Parameter):
                value = float(utterance.parameters.get(parameter.name, parameter.default))
                # Upstream's samplers take 1.0 where they refuse 1.
                arguments[parameter.name] = int(value) if parameter.integer else value
        if self._member.multilingual:
            arguments["language_id"] = utterance.parameters.get("language", source.voice.language.partition("-")[0])
        if "cfg_weight" in arguments:
            arguments["cfg_weight"] = max(LEAST_CFG_WEIGHT, float(arguments["cfg_weight"]))
        return arguments

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """A block after which T3 is as it was: the guard of Multilingual adds hooks to it with every utterance."""
        backbone = self._model.t3.tfmr
        attentions, implementation = backbone.config.output_attentions, backbone.config._attn_implementation
        try:
            yield
        finally:
            for layer in getattr(backbone, "layers", ()):
                layer.self_attn._forward_hooks.clear()
            backbone.config.output_attentions = attentions
            backbone.config._attn_implementation = implementation

    def _between_blocks(self, *_: Any) -> None:
        self._cancellation.check()
