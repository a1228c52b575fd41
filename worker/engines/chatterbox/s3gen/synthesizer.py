"""From speech tokens to a wave: the flow, then the vocoder, in cooperative steps."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from worker.engines.base import Samples
from worker.engines.chatterbox.s3gen.flow import Flow
from worker.engines.chatterbox.s3gen.vocoder import Vocoder
from worker.precision import Precision
from worker.stage_timer import StageTimer


class Synthesizer:
    """Upstream's `S3Token2Wav.inference`, for one utterance at a time."""

    def __init__(self, s3gen: Any, precision: Precision, timer: StageTimer | None = None) -> None:
        self._timer = timer or StageTimer()
        self.flow = Flow(s3gen, precision)
        self.vocoder = Vocoder(s3gen.mel2wav, precision)
        self._fade_in: Tensor = s3gen.trim_fade

    def steps(
        self, tokens: Tensor, voice: dict[str, Tensor], generator: torch.Generator
    ) -> Generator[None, None, Samples]:
        """The audio of `tokens`, int64 (tokens,), in a voice given as upstream's `ref_dict`; without the watermark.

        `generator` is the one that drew the tokens: like upstream, flow and vocoder draw their noise from it.
        """
        mel = yield from self._timer.steps("flow", self.flow.steps(tokens, voice, generator))
        wave = yield from self._timer.steps("vocoder", self.vocoder.steps(mel, generator))
        # Like upstream: the first milliseconds may contain remains of the reference clip, so they are faded in.
        wave[: len(self._fade_in)] *= self._fade_in
        samples: Samples = wave.numpy()
        return samples
