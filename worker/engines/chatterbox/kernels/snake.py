"""The vocoder's activation: x + sin(ax)**2 / a, with an a for each channel (arXiv 2006.08195)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import compiled, shared
from worker.engines.chatterbox.kernels.simd.activations import snake_row


class Snake:
    """In one passage over the states, where PyTorch takes four."""

    def __init__(self, snake: Any) -> None:
        self._frequency = snake.alpha.float().contiguous()
        self._share = (1.0 / (self._frequency + snake.no_div_by_zero)).contiguous()

    def __call__(self, states: Tensor) -> Tensor:
        """Floating states (…, channels), a multiple of 16, as float32."""
        states = states.float().contiguous()
        out = torch.empty_like(states)
        rows, its = (tensor.view(-1, states.shape[-1]).numpy() for tensor in (states, out))
        shared(_snake, len(rows), rows, its, self._frequency.numpy(), self._share.numpy())
        return out


@compiled
def _snake(first, end, states, out, frequencies, shares):  # type: ignore[no-untyped-def]
    channels = states.shape[1]
    for row in range(first, end):
        place = row * channels * 4
        snake_row(
            states.ctypes.data + place, frequencies.ctypes.data, shares.ctypes.data, channels, out.ctypes.data + place
        )
