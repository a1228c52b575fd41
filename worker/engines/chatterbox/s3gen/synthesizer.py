"""From speech tokens to a wave: the flow, then the vocoder, in pieces."""

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


class Sound:
    """What upstream's `S3Token2Wav.inference` does, for one utterance at a time."""

    def __init__(self, s3gen: Any, precision: Precision, stages: StageTimer | None = None) -> None:
        self._stages = stages or StageTimer()
        self.flow = Flow(s3gen, precision)
        self.vocoder = Vocoder(s3gen.mel2wav, precision)
        self._fade: Tensor = s3gen.trim_fade

    def pieces(
        self, tokens: Tensor, voice: dict[str, Tensor], generator: torch.Generator
    ) -> Generator[None, None, Samples]:
        """The sound of `tokens`, int64 (tokens,), in a voice of upstream's `ref_dict`, before its watermark.

        Noise is drawn from `generator`, which upstream has drawn the tokens from, too.
        """
        mel = yield from self._stages.steps("flow", self.flow.pieces(tokens, voice, generator))
        wave = yield from self._stages.steps("vocoder", self.vocoder.pieces(mel, generator))
        # As upstream does: what the reference clip spills into the first milliseconds is faded in.
        wave[: len(self._fade)] *= self._fade
        samples: Samples = wave.numpy()
        return samples
