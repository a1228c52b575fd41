"""The batched engine in one precision, run with the tokens, noise and spectrogram of a reference run."""

from __future__ import annotations

from typing import Any

import librosa
import torch
from chatterbox.models.s3tokenizer import S3_SR
from torch import Tensor

from voices.registry import Voice
from worker.engines.base import VoiceSource
from worker.engines.chatterbox.batched import BatchedEngine
from worker.engines.chatterbox.cooperative import run_to_completion
from worker.engines.chatterbox.precision_check.reference_run import ReferenceRun
from worker.engines.chatterbox.s3gen.flow import upstreams_noise
from worker.engines.chatterbox.t3.sampling import classifier_free_guidance
from worker.engines.chatterbox.t3.tokenize import text_tokens
from worker.engines.chatterbox.t3.voice_prefix import PrefixKey
from worker.engines.chatterbox.upstream import patches


class TeacherForcedEngine(BatchedEngine):
    """A batched engine whose stages can be run one by one from a reference run."""

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
        tokens, generator = reference.s3gen_tokens, _generator(reference.flow_rng_state)
        noise = upstreams_noise(tokens, conditionals, generator, mean_flow=self.loaded.variant.turbo)
        with torch.inference_mode():
            return run_to_completion(self._s3gen.flow.steps_from(noise, tokens, conditionals))

    def wave(self, reference: ReferenceRun, mel: Tensor | None = None) -> Tensor:
        """The wave of a spectrogram, the reference's by default, from the reference's noise: float32 (samples,)."""
        generator = _generator(reference.vocoder_rng_state)
        with torch.inference_mode():
            return run_to_completion(self._s3gen.vocoder.steps(reference.mel if mel is None else mel, generator))

    def speaker_similarity(self, one: Tensor, other: Tensor) -> float:
        """The cosine similarity of the speakers of two waves, float32 (samples,), by the model's voice encoder."""
        rate = self.card.sample_rate
        # As upstream resamples a reference clip.
        waves = [librosa.resample(wave.numpy(), orig_sr=rate, target_sr=S3_SR) for wave in (one, other)]
        with torch.inference_mode():
            embeddings = torch.from_numpy(self.loaded.upstream.ve.embeds_from_wavs(waves, sample_rate=S3_SR))
        return float(torch.cosine_similarity(embeddings[0], embeddings[1], dim=0))


def _generator(state: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator
