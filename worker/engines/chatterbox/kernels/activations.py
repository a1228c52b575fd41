"""Activations of s3gen, each in one pass over the states: the estimator's Mish and the vocoder's Snake."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.jit import ArrayF32, jit
from worker.engines.chatterbox.kernels.openmp import parallel_for
from worker.engines.chatterbox.kernels.simd.activations import mish_row, snake_row


def mish_(states: Tensor) -> Tensor:
    """Mish, x * tanh(log(1 + e**x)) (arXiv 1908.08681), in place; a fifth of the time of PyTorch's own.

    `states` is contiguous float32 (…, channels), where channels is a multiple of 16.
    """
    rows = states.view(-1, states.shape[-1]).numpy()
    parallel_for(_mish, len(rows), rows)
    return states


@jit
def _mish(begin: int, end: int, states: ArrayF32) -> None:
    channels = states.shape[1]
    for row in range(begin, end):
        mish_row(states.ctypes.data + row * channels * 4, channels)


class Snake:
    """Snake, x + sin(ax)**2 / a, with an a for each channel (arXiv 2006.08195); PyTorch takes four passes for it."""

    def __init__(self, snake: Any) -> None:
        self._frequencies = snake.alpha.float().contiguous()
        self._scales = (1.0 / (self._frequencies + snake.no_div_by_zero)).contiguous()

    def __call__(self, states: Tensor) -> Tensor:
        """Floating-point states (…, channels), where channels is a multiple of 16, to float32."""
        states = states.float().contiguous()
        out = torch.empty_like(states)
        rows, out_rows = (tensor.view(-1, states.shape[-1]).numpy() for tensor in (states, out))
        parallel_for(_snake, len(rows), rows, out_rows, self._frequencies.numpy(), self._scales.numpy())
        return out


@jit
def _snake(begin: int, end: int, states: ArrayF32, out: ArrayF32, frequencies: ArrayF32, scales: ArrayF32) -> None:
    channels = states.shape[1]
    for row in range(begin, end):
        offset = row * channels * 4
        snake_row(
            states.ctypes.data + offset, frequencies.ctypes.data, scales.ctypes.data, channels, out.ctypes.data + offset
        )
