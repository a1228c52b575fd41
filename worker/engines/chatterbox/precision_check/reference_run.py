"""What upstream makes of a text by its own classes, with everything it drew and computed on the way.

It is recorded while upstream's own `generate` runs, once: tokens with the logits that each was drawn from, then the
spectrogram and the wave, each with the state that the random generator had before. Another precision is then led along
the same way, and compared at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, VoiceSource
from worker.engines.chatterbox.stock import StockEngine
from worker.engines.chatterbox.t3.sampling import STOP, classifier_free_guidance


@dataclass(frozen=True)
class Trajectory:
    """One text's way through upstream."""

    utterance: Utterance
    temperature: float
    """That tokens were drawn at."""
    tokens: list[int]
    """What was drawn at each step; the last one, which nothing follows, may stand for another."""
    logits: Tensor
    """What it was drawn from, float32 (steps, vocabulary): with guidance, where there is any, and nothing else."""
    spoken: Tensor
    """The tokens that S3Gen was given, int64 (spoken tokens,)."""
    flow_state: Tensor
    """Of torch's generator before the flow drew its noise."""
    mel: Tensor
    """What the flow made, float32 (frames, bands)."""
    vocoder_state: Tensor
    """Of torch's generator before the vocoder drew its noise."""
    wave: Tensor
    """What the vocoder made, float32 (samples,)."""
    samples: Samples
    """The speech, faded in and with its watermark."""


class RecordedEngine(StockEngine):
    """The stock engine, which can keep what it does."""

    def record(self, utterance: Utterance, source: VoiceSource) -> Trajectory:
        """Speak, and keep what was made on the way. The voice must be prepared."""
        decode = "inference_turbo" if self.loaded.variant.turbo else "inference"
        flow, vocoder = "flow_inference", "hift_inference"
        parts = {decode: self.loaded.upstream.t3, flow: self.loaded.upstream.s3gen, vocoder: self.loaded.upstream.s3gen}
        with _recorded(parts) as calls, _collected(self.loaded.upstream.t3.speech_head) as steps:
            samples = np.concatenate(list(self.synthesize(utterance, source, Cancellation())))
        options = calls[decode].options
        logits = torch.stack([step[:, -1] for step in steps])
        turbo = self.loaded.variant.turbo
        guided = logits[:, 0] if turbo else classifier_free_guidance(logits, options["cfg_weight"])
        # Upstream leaves the last step's token out where it ended the speech, or was not drawn any more.
        tokens = [*calls[decode].made.flatten().tolist(), STOP]
        return Trajectory(
            utterance=utterance,
            temperature=options["temperature"],
            tokens=tokens[: len(steps)],
            logits=guided,
            spoken=calls[flow].arguments[0].flatten(),
            flow_state=calls[flow].state,
            mel=calls[flow].made[0].t().contiguous(),
            vocoder_state=calls[vocoder].state,
            wave=calls[vocoder].made[0],
            samples=samples,
        )


@dataclass(frozen=True)
class _Call:
    """One call of a method."""

    state: Tensor
    """Of torch's generator before it."""
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    made: Tensor
    """What it gave, or the first thing of that."""


@contextmanager
def _recorded(parts: dict[str, Any]) -> Iterator[dict[str, _Call]]:
    """A block in which the methods named are recorded, of these objects; the last call of each."""
    calls: dict[str, _Call] = {}

    def recorded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            state = torch.get_rng_state()
            made = method(*arguments, **options)
            first = made[0] if isinstance(made, tuple) else made
            # Upstream fades a wave in where it lies.
            calls[name] = _Call(state, arguments, options, first.clone())
            return made

        return call

    before = {name: vars(owner).get(name) for name, owner in parts.items()}
    try:
        for name, owner in parts.items():
            setattr(owner, name, recorded(name, getattr(owner, name)))
        yield calls
    finally:
        for name, owner in parts.items():
            delattr(owner, name)
            if before[name] is not None:
                setattr(owner, name, before[name])


@contextmanager
def _collected(module: Any) -> Iterator[list[Tensor]]:
    """A block in which whatever a module puts out is collected."""
    collected: list[Tensor] = []

    def collect(_module: Any, _inputs: Any, output: Tensor) -> None:
        collected.append(output.clone())

    hook = module.register_forward_hook(collect)
    try:
        yield collected
    finally:
        hook.remove()
