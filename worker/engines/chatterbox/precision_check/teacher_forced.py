"""The batched engine in one precision, run with the tokens, noise and spectrogram of a reference run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voices.registry import Voice
from worker.engines.base import VoiceSource
from worker.engines.chatterbox.batched import BatchedEngine
from worker.engines.chatterbox.cooperative import run_to_completion
from worker.engines.chatterbox.precision_check.reference_run import ReferenceRun
from worker.engines.chatterbox.t3.sampling import classifier_free_guidance
from worker.engines.chatterbox.t3.tokenize import text_tokens
from worker.engines.chatterbox.t3.voice_prefix import PrefixKey
from worker.engines.chatterbox.upstream import patches
from worker.options import EngineOptions
from worker.precision import Precision


class TeacherForcedEngine(BatchedEngine):
    """A batched engine with one slot, whose stages can be run one by one from a reference run."""

    def __init__(self, name: str, checkpoint: Path, cache: Path, precision: Precision) -> None:
        """Raises ModelUnavailableError where the checkpoint does not load."""
        super().__init__(EngineOptions(name, cache, precision=precision), checkpoint)

    def logits(self, reference: ReferenceRun, source: VoiceSource) -> Tensor:
        """The logits that lead to each of the reference's tokens: float32 (steps, vocabulary)."""
        utterance = reference.utterance
        arguments: dict[str, Any] = dict(self.loaded.arguments(utterance, source))
        with torch.inference_mode(), patches.muted():
            language = arguments.get("language_id")
            text = text_tokens(self.loaded.upstream, self.loaded.variant, utterance.text, language)
            prefix = self._prefixes.get(PrefixKey(source.voice.name, arguments.get("exaggeration")))
            logits = self._decoder.forced_logits(prefix, text, reference.tokens)
        turbo = self.loaded.variant.turbo
        return logits[:, 0] if turbo else classifier_free_guidance(logits, arguments["cfg_weight"])

    def mel(self, reference: ReferenceRun, voice: Voice) -> Tensor:
        """The spectrogram of the reference's tokens, from its noise: float32 (frames, bands)."""
        conditionals = self.loaded.conditionals(voice.name).gen
        generator = _generator(reference.flow_rng_state)
        with torch.inference_mode():
            return run_to_completion(self._s3gen.flow.steps(reference.s3gen_tokens, conditionals, generator))

    def wave(self, reference: ReferenceRun) -> Tensor:
        """The wave of the reference's spectrogram, from its noise: float32 (samples,)."""
        generator = _generator(reference.vocoder_rng_state)
        with torch.inference_mode():
            return run_to_completion(self._s3gen.vocoder.steps(reference.mel, generator))


def _generator(state: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator
