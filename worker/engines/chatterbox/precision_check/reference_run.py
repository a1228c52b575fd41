"""The reference run: what upstream's own classes draw and compute for a text, stage by stage.

It is recorded during one call of upstream's own `generate`: the tokens with the logits that each was drawn from, the
spectrogram and the wave, each with the state of the random generator before it. Another precision then gets the same
inputs at every stage, and its outputs are compared.
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
class ReferenceRun:
    """Inputs and outputs of every stage, for one text."""

    utterance: Utterance
    temperature: float
    """Sampling temperature of the tokens."""
    tokens: list[int]
    """The token drawn at each step; the last one, which is not fed back, may be a placeholder."""
    logits: Tensor
    """float32 (steps, vocabulary), after guidance, if the model has it, and before every other processor."""
    s3gen_tokens: Tensor
    """The tokens that S3Gen received, int64 (tokens,)."""
    flow_rng_state: Tensor
    """State of torch's generator before the flow drew its noise."""
    mel: Tensor
    """The flow's output, float32 (frames, bands)."""
    vocoder_rng_state: Tensor
    """State of torch's generator before the vocoder drew its noise."""
    wave: Tensor
    """The vocoder's output, float32 (samples,)."""
    samples: Samples
    """The final audio, faded in and watermarked."""


class RecordingEngine(StockEngine):
    """A stock engine that can record a reference run."""

    def record(self, utterance: Utterance, source: VoiceSource) -> ReferenceRun:
        """Synthesise an utterance and return its reference run. The voice must be prepared."""
        decode = "inference_turbo" if self.loaded.variant.turbo else "inference"
        flow, vocoder = "flow_inference", "hift_inference"
        parts = {decode: self.loaded.upstream.t3, flow: self.loaded.upstream.s3gen, vocoder: self.loaded.upstream.s3gen}
        with _record_calls(parts) as calls, _collect_outputs(self.loaded.upstream.t3.speech_head) as steps:
            samples = np.concatenate(list(self.synthesize(utterance, source, Cancellation())))
        options = calls[decode].options
        logits = torch.stack([step[:, -1] for step in steps])
        turbo = self.loaded.variant.turbo
        guided = logits[:, 0] if turbo else classifier_free_guidance(logits, options["cfg_weight"])
        # Upstream does not return the last step's token where that was the stop token or was never drawn.
        tokens = [*calls[decode].result.flatten().tolist(), STOP]
        return ReferenceRun(
            utterance=utterance,
            temperature=options["temperature"],
            tokens=tokens[: len(steps)],
            logits=guided,
            s3gen_tokens=calls[flow].arguments[0].flatten(),
            flow_rng_state=calls[flow].rng_state,
            mel=calls[flow].result[0].t().contiguous(),
            vocoder_rng_state=calls[vocoder].rng_state,
            wave=calls[vocoder].result[0],
            samples=samples,
        )


@dataclass(frozen=True)
class _Call:
    """A recorded method call."""

    rng_state: Tensor
    """State of torch's generator before the call."""
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    result: Tensor
    """A copy of the returned value, or of its first item."""


@contextmanager
def _record_calls(parts: dict[str, Any]) -> Iterator[dict[str, _Call]]:
    """A block that records the last call of each method; `parts` are the objects by name of their method."""
    calls: dict[str, _Call] = {}

    def recorded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            state = torch.get_rng_state()
            result = method(*arguments, **options)
            first = result[0] if isinstance(result, tuple) else result
            # A copy, because upstream fades the wave in place.
            calls[name] = _Call(state, arguments, options, first.clone())
            return result

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
def _collect_outputs(module: Any) -> Iterator[list[Tensor]]:
    """A block that collects copies of all outputs of a module."""
    collected: list[Tensor] = []

    def collect(_module: Any, _inputs: Any, output: Tensor) -> None:
        collected.append(output.clone())

    hook = module.register_forward_hook(collect)
    try:
        yield collected
    finally:
        hook.remove()
