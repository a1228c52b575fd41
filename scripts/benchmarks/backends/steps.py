"""What is computed: plain modules, written so that nothing but the runtime differs.

Keys and values of earlier positions are passed in, those of the new one passed out: none is copied to be one longer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor, nn

from scripts.benchmarks.backends.inputs import Arrays


class DecodeStep(nn.Module):  # type: ignore[misc]
    """One position of every row through T3's layers, a GPT-2, and its head.

    `states` are float32 (rows, width), embeddings with positions; then come each layer's keys and values of earlier
    positions, (rows, heads, positions, head's width). Gives logits (rows, tokens), then the new keys and values.
    """

    def __init__(self, t3: Any) -> None:
        super().__init__()
        self.blocks = t3.tfmr.h
        self.last = t3.tfmr.ln_f
        self.head = t3.speech_head
        self.heads: int = t3.tfmr.config.n_head

    def forward(self, states: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """See above."""
        new = []
        for block, keys, values in zip(self.blocks, past[::2], past[1::2], strict=True):
            mixed = _product(block.ln_1(states), block.attn.c_attn)
            rows, width = states.shape[0], states.shape[1] // self.heads
            query, key, value = mixed.reshape(rows, 3 * self.heads, 1, width).split(self.heads, 1)
            query = query * width**-0.5
            scores = torch.cat([query @ keys.transpose(2, 3), (query * key).sum(3, keepdim=True)], 3)
            weights = torch.softmax(scores, 3)
            heard = weights[..., :-1] @ values + weights[..., -1:] * value
            states = states + _product(heard.reshape(rows, -1), block.attn.c_proj)
            wide = F.gelu(_product(block.ln_2(states), block.mlp.c_fc), approximate="tanh")
            states = states + _product(wide, block.mlp.c_proj)
            new += [key, value]
        return self.head(self.last(states)), *new


def _product(states: Tensor, layer: Any) -> Tensor:
    # GPT-2 keeps its weights the other way round than `nn.Linear` does.
    return states @ layer.weight + layer.bias


class EstimatorStep(nn.Module):  # type: ignore[misc]
    """One step of the flow's estimator: spectrogram, encoder's output, speaker and prompt to a direction.

    All float32 (1, bands, frames), the speaker (1, bands); then the step's beginning and end in time, (1,) each.
    """

    def __init__(self, s3gen: Any) -> None:
        super().__init__()
        self.estimator = s3gen.flow.decoder.estimator

    def forward(
        self, noisy: Tensor, wanted: Tensor, speaker: Tensor, prompt: Tensor, time: Tensor, until: Tensor
    ) -> Tensor:
        """See above."""
        mask = torch.ones_like(noisy[:, :1])
        direction: Tensor = self.estimator(noisy, mask, wanted, time, speaker, prompt, r=until)
        return direction


def tensors(arrays: Arrays) -> list[Tensor]:
    """The same memory for torch, in order."""
    return [torch.from_numpy(array) for array in arrays.values()]
