"""The steps as plain modules, the same for all runtimes.

The KV cache of earlier positions is an input, and the keys and values of the new position are outputs: no cache is
copied to make it one position longer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from scripts.benchmarks.backends.inputs import Arrays


class DecodeStep(nn.Module):  # type: ignore[misc]
    """One position of every row through the layers of T3, a GPT-2, and its head.

    Inputs, all float32: states (rows, width), embeddings that include the positions; then keys and values of each
    layer, (rows, heads, positions, head width). Outputs: logits (rows, tokens), then the new keys and values.
    """

    def __init__(self, t3: Any) -> None:
        super().__init__()
        self.blocks = t3.tfmr.h
        self.final_norm = t3.tfmr.ln_f
        self.head = t3.speech_head
        self.heads: int = t3.tfmr.config.n_head

    def forward(self, states: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        new = []
        for block, keys, values in zip(self.blocks, cache[::2], cache[1::2], strict=True):
            qkv = _linear(block.ln_1(states), block.attn.c_attn)
            rows, head_width = states.shape[0], states.shape[1] // self.heads
            query, key, value = qkv.reshape(rows, 3 * self.heads, 1, head_width).split(self.heads, 1)
            query = query * head_width**-0.5
            scores = torch.cat([query @ keys.transpose(2, 3), (query * key).sum(3, keepdim=True)], 3)
            weights = torch.softmax(scores, 3)
            attention = weights[..., :-1] @ values + weights[..., -1:] * value
            states = states + _linear(attention.reshape(rows, -1), block.attn.c_proj)
            hidden = F.gelu(_linear(block.ln_2(states), block.mlp.c_fc), approximate="tanh")
            states = states + _linear(hidden, block.mlp.c_proj)
            new += [key, value]
        return self.head(self.final_norm(states)), *new


def _linear(states: Tensor, layer: Any) -> Tensor:
    # GPT-2's weights are the transpose of those of `nn.Linear`.
    return states @ layer.weight + layer.bias


class EstimatorStep(nn.Module):  # type: ignore[misc]
    """One step of the flow's estimator: the velocity of the mel spectrogram, float32 (1, bands, frames).

    Inputs, all float32: noisy spectrogram, output of the encoder and prompt, (1, bands, frames) each; the speaker,
    (1, bands); start and end time of the step, (1,) each.
    """

    def __init__(self, s3gen: Any) -> None:
        super().__init__()
        self.estimator = s3gen.flow.decoder.estimator

    def forward(
        self, noisy: Tensor, encoded: Tensor, speaker: Tensor, prompt: Tensor, start_time: Tensor, end_time: Tensor
    ) -> Tensor:
        """See the class."""
        mask = torch.ones_like(noisy[:, :1])
        velocity: Tensor = self.estimator(noisy, mask, encoded, start_time, speaker, prompt, r=end_time)
        return velocity


def as_tensors(arrays: Arrays) -> list[Tensor]:
    """The arrays as tensors that share their memory, in order."""
    return [torch.from_numpy(array) for array in arrays.values()]
