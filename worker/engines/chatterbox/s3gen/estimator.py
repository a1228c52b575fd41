"""The flow's estimator: in which direction a noisy mel spectrogram becomes the wanted one. Most of all work is here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worker.engines.chatterbox.cooperative import Pieces
from worker.engines.chatterbox.kernels.mish import mish_
from worker.engines.chatterbox.layers.attention import self_attention
from worker.engines.chatterbox.layers.convolution import convolution
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.s3gen.encoder import normal
from worker.precision import Precision

TAPS = 3
"""Width of every convolution, all of which look back in time only."""


class Estimator:
    """Upstream's `ConditionalDecoder`, for a batch of equally long spectrograms without padding."""

    def __init__(self, estimator: Any, precision: Precision) -> None:
        self._upstream = estimator
        (down,), (up,) = estimator.down_blocks, estimator.up_blocks
        self._blocks = [_Block(block[0], block[1], precision) for block in (down, *estimator.mid_blocks, up)]
        self._after_down, self._after_up = (
            convolution(block[2].weight, block[2].bias, precision, before=TAPS - 1) for block in (down, up)
        )
        self._last = _Causal(estimator.final_block, precision)
        final = estimator.final_proj
        self._out = linear(final.weight[:, :, 0], final.bias, precision)
        self._shifts: dict[tuple[float, float | None], list[Tensor]] = {}

    def pieces(self, states: Tensor, time: float, until: float | None) -> Pieces:
        """The direction at `time`, or over all of the way `until` then where the model knows how, block by block.

        `states` are float32 (batch, frames, channels): spectrogram, encoder's output, speaker and prompt side by side;
        the answer (batch, frames, bands).
        """
        shifts = self._times(time, until)
        first, *middle, last = zip(self._blocks, shifts, strict=True)
        skipped = first[0](states, first[1])
        states = self._after_down(skipped)
        for block, shift in middle:
            yield
            states = block(states, shift)
        states = last[0](torch.cat([states, skipped.to(states.dtype)], -1), last[1])
        return self._out(self._last(self._after_up(states))).float()

    def _times(self, time: float, until: float | None) -> list[Tensor]:
        """What each block adds to all frames at that time: the same for every utterance, so computed once."""
        if (time, until) not in self._shifts:
            upstream = self._upstream
            embedded = upstream.time_mlp(upstream.time_embeddings(torch.tensor([time])))
            if until is not None:
                ends = upstream.time_mlp(upstream.time_embeddings(torch.tensor([until])))
                embedded = upstream.time_embed_mixer(torch.cat([embedded, ends], 1))
            self._shifts[time, until] = [block.shift(embedded) for block in self._blocks]
        return self._shifts[time, until]


class _Block:
    """Two convolutions with a way past them, then a few transformer layers."""

    def __init__(self, resnet: Any, transformers: Any, precision: Precision) -> None:
        self.shift = resnet.mlp
        self._first, self._second = _Causal(resnet.block1, precision), _Causal(resnet.block2, precision)
        self._past = linear(resnet.res_conv.weight[:, :, 0], resnet.res_conv.bias, precision)
        self._transformers = [_Transformer(layer, precision) for layer in transformers]

    def __call__(self, states: Tensor, shift: Tensor) -> Tensor:
        new = self._second(self._first(states) + shift)
        states = new + self._past(states)
        for transformer in self._transformers:
            states = transformer(states)
        return states


class _Causal:
    """A convolution, a norm over the channels and Mish."""

    def __init__(self, block: Any, precision: Precision) -> None:
        its, _, self._norm, *_ = block.block
        self._convolution = convolution(its.weight, its.bias, precision, before=TAPS - 1)

    def __call__(self, states: Tensor) -> Tensor:
        return mish_(normal(self._convolution(states), self._norm))


class _Transformer:
    """Attention over all frames of an utterance, then two products."""

    def __init__(self, layer: Any, precision: Precision) -> None:
        attended = layer.attn1
        self._norm_attention, self._norm_forward = layer.norm1, layer.norm3
        self._attend = self_attention(
            attended.to_q.weight, attended.to_k.weight, attended.to_v.weight, attended.heads, precision
        )
        self._out = linear(attended.to_out[0].weight, attended.to_out[0].bias, precision)
        widen, _, narrow = layer.ff.net
        self._widen = linear(widen.proj.weight, widen.proj.bias, precision, activation="gelu")
        self._narrow = linear(narrow.weight, narrow.bias, precision)

    def __call__(self, states: Tensor) -> Tensor:
        seen = normal(states, self._norm_attention)
        heard = torch.stack([self._attend(one) for one in seen])
        states = states + self._out(heard)
        return states + self._narrow(self._widen(normal(states, self._norm_forward)))
