"""The batched engine in one precision, led along what upstream did: by its tokens, its noise and its spectrogram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voices.registry import Voice
from worker.engines.base import VoiceSource
from worker.engines.chatterbox.batched import BatchedEngine
from worker.engines.chatterbox.cooperative import run_to_completion
from worker.engines.chatterbox.precision_check.reference_run import Trajectory
from worker.engines.chatterbox.t3.sampling import classifier_free_guidance
from worker.engines.chatterbox.t3.tokenize import text_tokens
from worker.engines.chatterbox.t3.voice_prefix import PrefixKey
from worker.engines.chatterbox.upstream import patches
from worker.precision import Precision


class LedEngine(BatchedEngine):
    """One utterance at a time."""

    def __init__(self, name: str, checkpoint: Path, cache: Path, precision: Precision) -> None:
        super().__init__(name, checkpoint, cache, slots=1, precision=precision)

    def logits(self, trajectory: Trajectory, source: VoiceSource) -> Tensor:
        """Those that lead to each of upstream's tokens: float32 (steps, vocabulary)."""
        utterance = trajectory.utterance
        arguments: dict[str, Any] = dict(self.loaded.arguments(utterance, source))
        with torch.inference_mode(), patches.muted():
            text = text_tokens(self.loaded.upstream, self.loaded.variant, utterance.text, arguments.get("language_id"))
            prefix = self._prefixes.get(PrefixKey(source.voice.name, arguments.get("exaggeration")))
            logits = self._decoder.forced_logits(prefix, text, trajectory.tokens)
        return logits[:, 0] if self.loaded.variant.turbo else classifier_free_guidance(logits, arguments["cfg_weight"])

    def mel(self, trajectory: Trajectory, voice: Voice) -> Tensor:
        """The spectrogram of upstream's tokens, of the noise that upstream drew: float32 (frames, bands)."""
        reference = self.loaded.conditionals(voice.name).gen
        with torch.inference_mode():
            return run_to_completion(self._s3gen.flow.steps(trajectory.spoken, reference, _from(trajectory.flow_state)))

    def wave(self, trajectory: Trajectory) -> Tensor:
        """The wave of upstream's spectrogram, of the noise that upstream drew: float32 (samples,)."""
        with torch.inference_mode():
            return run_to_completion(self._s3gen.vocoder.steps(trajectory.mel, _from(trajectory.vocoder_state)))


def _from(state: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator
