"""The stock engine: one utterance at a time through upstream's own `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from worker.cards import EngineCard
from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, VoiceSource
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.loaded_model import LoadedModel
from worker.memory import trim_heap


class StockEngine:
    """Upstream's class for one model. `checkpoint` is the folder of its weights, `cache` that for conditionals."""

    def __init__(self, name: str, checkpoint: Path, cache: Path) -> None:
        """Raises ModelUnavailableError where the checkpoint does not load."""
        self.loaded = LoadedModel(name, checkpoint, cache)
        self._cancellation = Cancellation()
        # Flow and vocoder take most of the time and have no loop that a patch could reach: these layers check for
        # cancellation instead.
        s3gen = self.loaded.upstream.s3gen
        blocks = [block[0] for block in s3gen.flow.decoder.estimator.mid_blocks]
        blocks += [module for module in s3gen.mel2wav.modules() if isinstance(module, torch.nn.Conv1d)]
        for block in blocks:
            block.register_forward_pre_hook(self._check_cancellation)

    @property
    def card(self) -> EngineCard:
        """Name, sample rate and parameters."""
        return self.loaded.card

    @property
    def model(self) -> str:
        """The model and the folder of its weights."""
        return self.loaded.description

    @property
    def slots(self) -> int:
        """1: the model is not thread-safe, and upstream's loop decodes one utterance."""
        return 1

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds spent so far, by stage."""
        return self.loaded.timer.seconds

    def prepare(self, source: VoiceSource) -> None:
        """Load or compute a voice's conditionals. Raises VoiceUnusableError."""
        self.loaded.prepare(source)

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Synthesise the text and yield its audio as one chunk."""
        model = self.loaded.upstream
        limit = patches.DecodeLimit(cancellation, self.loaded.token_budget(utterance))
        self._cancellation = cancellation
        try:
            # Inference mode: otherwise the watermark would keep a gradient graph for every utterance.
            with (
                torch.inference_mode(),
                patches.muted(),
                patches.limited_decoding(limit),
                patches.restored_attention(model.t3),
            ):
                model.conds = self.loaded.conditionals(source.voice.name)
                # Upstream draws tokens and noise from torch's global generator.
                torch.manual_seed(utterance.seed)
                arguments = self.loaded.arguments(utterance, source)
                samples: Samples = model.generate(utterance.text, **arguments).numpy()[0]
        finally:
            self._cancellation = Cancellation()
            trim_heap()
        yield samples

    def _check_cancellation(self, *_: Any) -> None:
        self._cancellation.check()
