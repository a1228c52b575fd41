"""The stock engine: one utterance at a time through upstream's own `generate`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from worker.cards import EngineCard, FlowModel
from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, TakeReport, VoiceSource
from worker.engines.chatterbox.takes import SOUNDS, Takes
from worker.engines.chatterbox.trailing_audio import TrailingAudioTrimmer, without_last_token
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.loaded_model import LoadedModel
from worker.memory import trim_heap


class _TakeDiscardedError(Exception):
    """Leaves upstream's `generate` where a take turns out to be bad."""


class StockEngine:
    """Upstream's class for one model. `checkpoint` is the folder of its weights, `cache` that for conditionals."""

    def __init__(
        self,
        name: str,
        checkpoint: Path,
        cache: Path,
        *,
        flow: FlowModel = FlowModel.UPSTREAM,
        flow_steps: int | None = None,
        retakes: int = 0,
        trim_end: bool = False,
    ) -> None:
        """Raises ModelUnavailableError where the checkpoint, or the flow, does not load."""
        self.loaded = LoadedModel(name, checkpoint, cache, flow)
        patches.transpose_without_onednn(self.loaded.upstream)
        if flow_steps is not None:
            patches.set_flow_steps(self.loaded.upstream, flow_steps)
        self._retakes = retakes
        self._trimmer = TrailingAudioTrimmer() if trim_end else None
        self._cancellation = Cancellation()
        self._limit = patches.DecodeLimit(self._cancellation, 0)
        self._takes: Takes | None = None
        self._tokens: list[int] = []
        """Speech tokens of the current take."""
        self._judge_takes()
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

    def synthesize(
        self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation
    ) -> Generator[Samples, None, TakeReport]:
        """Synthesise the text and yield its audio as one chunk."""
        takes = Takes(utterance, self._retakes)
        samples: Samples | None = None
        while samples is None:
            with suppress(_TakeDiscardedError):
                samples = self._generate(utterance, source, cancellation, takes)
        yield samples
        return takes.finish()

    def _generate(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation, takes: Takes) -> Samples:
        """The audio of one take. Raises _TakeDiscardedError where it is bad and another one follows."""
        model = self.loaded.upstream
        self._takes, self._tokens, self._cancellation = takes, [], cancellation
        budget = self.loaded.token_budget(utterance)
        self._limit = patches.DecodeLimit(cancellation, budget, lambda: takes.spoiled(self._tokens))
        try:
            # Inference mode: otherwise the watermark would keep a gradient graph for every utterance.
            with (
                torch.inference_mode(),
                patches.muted(),
                patches.limited_decoding(self._limit),
                patches.restored_attention(model.t3),
            ):
                model.conds = self.loaded.conditionals(source.voice.name)
                # Upstream draws tokens and noise from torch's global generator.
                torch.manual_seed(takes.seed)
                arguments = self.loaded.arguments(utterance, source)
                samples: Samples = model.generate(utterance.text, **arguments).numpy()[0]
                return samples
        finally:
            self._takes, self._cancellation = None, Cancellation()
            trim_heap()

    def _judge_takes(self) -> None:
        """Have upstream's `generate` leave a bad take after its tokens or before its watermark, and trim a good one."""
        model = self.loaded.upstream
        model.t3.speech_emb.register_forward_pre_hook(self._record_token)
        for method in ("inference", "inference_turbo"):
            setattr(model.t3, method, self._judging_tokens(getattr(model.t3, method)))
        model.watermarker.apply_watermark = self._finishing_audio(model.watermarker.apply_watermark)

    def _record_token(self, _: Any, inputs: tuple[torch.Tensor]) -> None:
        # The loops embed one token at a time, and before them a whole prompt.
        if inputs[0].numel() == 1 and int(inputs[0]) < SOUNDS:
            self._tokens.append(int(inputs[0]))

    def _judging_tokens(self, decode: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @wraps(decode)
        def judged(*arguments: Any, **options: Any) -> torch.Tensor:
            tokens = decode(*arguments, **options)
            if self._takes is not None:
                sounds = [token for token in tokens.flatten().tolist() if token < SOUNDS]
                self._takes.judge_tokens(sounds, cut=self._limit.reached)
                self._leave_bad_take(self._takes)
            return tokens

        return judged

    def _finishing_audio(self, watermark: Callable[..., Samples]) -> Callable[..., Samples]:
        @wraps(watermark)
        def finished(wav: Samples, *, sample_rate: int) -> Samples:
            if self.loaded.variant.drops_last_token:
                wav = without_last_token(wav, sample_rate)
            if self._takes is not None:
                self._takes.judge_audio(wav, sample_rate)
                self._leave_bad_take(self._takes)
                if self._trimmer is not None:
                    wav = self._trimmer.trim(wav, sample_rate, self._takes.utterance)
            return watermark(wav, sample_rate=sample_rate)

        return finished

    def _leave_bad_take(self, takes: Takes) -> None:
        if takes.discard():
            raise _TakeDiscardedError

    def _check_cancellation(self, *_: Any) -> None:
        self._cancellation.check()
