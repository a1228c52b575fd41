"""The flow's estimator: the velocity from noise towards the mel spectrogram. Most of S3Gen's time is spent here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worker.engines.chatterbox.cooperative import CooperativeSteps
from worker.engines.chatterbox.kernels.activations import mish_
from worker.engines.chatterbox.layers.attention import self_attention
from worker.engines.chatterbox.layers.convolution import convolution
from worker.engines.chatterbox.layers.feed_forward import feed_forward
from worker.engines.chatterbox.layers.layer_norm import layer_norm
from worker.engines.chatterbox.layers.linear import linear
from worker.precision import Precision

KERNEL_SIZE = 3
"""Taps of every convolution; all are causal."""


class Estimator:
    """Upstream's `ConditionalDecoder`, for a batch of spectrograms of the same length, without padding."""

    def __init__(self, estimator: Any, precision: Precision) -> None:
        self._upstream = estimator
        (down,), (up,) = estimator.down_blocks, estimator.up_blocks
        self._blocks = [_Block(block[0], block[1], precision) for block in (down, *estimator.mid_blocks, up)]
        self._down_conv, self._up_conv = (
            convolution(block[2].weight, block[2].bias, precision, before=KERNEL_SIZE - 1) for block in (down, up)
        )
        self._final_block = _CausalBlock(estimator.final_block, precision)
        final = estimator.final_proj
        self._final_projection = linear(final.weight[:, :, 0], final.bias, precision)
        self._shifts: dict[tuple[float, float | None], list[Tensor]] = {}

    def steps(self, states: Tensor, time: float, until: float | None) -> CooperativeSteps:
        """The velocity at `time`, or the mean velocity from `time` to `until` (mean flow), one block per step.

        `states`, float32 (batch, frames, channels), hold side by side the noisy spectrogram, the encoder's output,
        speaker and prompt. The result is (batch, frames, bands).
        """
        shifts = self._time_shifts(time, until)
        first, *middle, last = zip(self._blocks, shifts, strict=True)
        skip = first[0](states, first[1])
        states = self._down_conv(skip)
        for block, shift in middle:
            yield
            states = block(states, shift)
        states = last[0](torch.cat([states, skip.to(states.dtype)], -1), last[1])
        return self._final_projection(self._final_block(self._up_conv(states))).float()

    def _time_shifts(self, time: float, until: float | None) -> list[Tensor]:
        """The time embedding that each block adds to every frame: equal for all utterances, so cached."""
        if (time, until) not in self._shifts:
            upstream = self._upstream
            embedded = upstream.time_mlp(upstream.time_embeddings(torch.tensor([time])))
            if until is not None:
                ends = upstream.time_mlp(upstream.time_embeddings(torch.tensor([until])))
                embedded = upstream.time_embed_mixer(torch.cat([embedded, ends], 1))
            self._shifts[time, until] = [block.shift(embedded) for block in self._blocks]
        return self._shifts[time, until]


class _Block:
    """A residual block of two causal blocks, then transformer layers."""

    def __init__(self, resnet: Any, transformers: Any, precision: Precision) -> None:
        self.shift = resnet.mlp
        self._first, self._second = _CausalBlock(resnet.block1, precision), _CausalBlock(resnet.block2, precision)
        self._shortcut = linear(resnet.res_conv.weight[:, :, 0], resnet.res_conv.bias, precision)
        self._transformers = [_Transformer(layer, precision) for layer in transformers]

    def __call__(self, states: Tensor, shift: Tensor) -> Tensor:
        residual = self._second(self._first(states) + shift)
        states = residual + self._shortcut(states)
        for transformer in self._transformers:
            states = transformer(states)
        return states


class _CausalBlock:
    """A causal convolution, a layer norm over the channels, and Mish."""

    def __init__(self, block: Any, precision: Precision) -> None:
        conv, _, self._norm, *_ = block.block
        self._convolution = convolution(conv.weight, conv.bias, precision, before=KERNEL_SIZE - 1)

    def __call__(self, states: Tensor) -> Tensor:
        return mish_(layer_norm(self._convolution(states), self._norm))


class _Transformer:
    """Attention over all frames of an utterance, then feed-forward (GELU)."""

    def __init__(self, layer: Any, precision: Precision) -> None:
        attention = layer.attn1
        self._attention = self_attention(
            layer.norm1, attention.to_q.weight, attention.to_k.weight, attention.to_v.weight, attention.heads, precision
        )
        self._output_projection = linear(attention.to_out[0].weight, attention.to_out[0].bias, precision)
        up, _, down = layer.ff.net
        self._feed_forward = feed_forward(layer.norm3, up.proj, down, precision, activation="gelu")

    def __call__(self, states: Tensor) -> Tensor:
        projected = [self._output_projection(self._attention(spectrogram)) for spectrogram in states]
        return self._feed_forward(states + torch.stack(projected))
