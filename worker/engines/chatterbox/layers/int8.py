"""Products of bytes: weights with a scale for each channel, activations with one for each row, or window of rows.

So what comes of a position depends on nothing but what the position is made from: never on others of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import TILES, ByteStrips
from worker.engines.chatterbox.kernels.quantize import quantized_windows, sizes

_WINDOW_BYTES = 2**18
"""Windows are multiplied so many bytes at a time, which a core's second cache holds beside the weight."""
_ROWS = TILES[1]
"""Windows at a time are a multiple of these."""


class Int8Linear:
    """See `kernels.linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        relu = activation == "relu"
        self._strips, self._relu = ByteStrips(weight, bias, "none" if relu else activation), relu

    def __call__(self, states: Tensor) -> Tensor:
        """The product, in float32."""
        product = self._strips(states.reshape(-1, states.shape[-1])).view(*states.shape[:-1], -1)
        return product.relu_() if self._relu else product


class Int8Convolution:
    """See `kernels.convolution`; of a stride of 1. What is multiplied are windows of rows side by side."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, dilation: int) -> None:
        self._outputs, inputs, taps = weight.shape
        self._strips = ByteStrips(weight.transpose(1, 2).reshape(self._outputs, -1), bias)
        self._width, self._dilation = taps * inputs, dilation
        self._before, self._lost = before, (taps - 1) * dilation - before - after
        self._windows = max(1, min(512, _WINDOW_BYTES // self._width) // _ROWS) * _ROWS

    def __call__(self, states: Tensor) -> Tensor:
        """The convolution of `states`, in float32."""
        out = torch.empty(len(states), states.shape[1] - self._lost, self._outputs)
        for one, its in zip(states.contiguous(), out, strict=True):
            self._convolve(one, its)
        return out

    def _convolve(self, states: Tensor, out: Tensor) -> None:
        of_rows = sizes(states)
        windows = torch.empty(min(self._windows, len(out)), self._width, dtype=torch.uint8)
        scales = torch.empty(len(windows))
        for first in range(0, len(out), len(windows)):
            its = out[first : first + len(windows)]
            part, its_scales = windows[: len(its)], scales[: len(its)]
            quantized_windows(states, of_rows, first - self._before, self._dilation, part, its_scales)
            self._strips.multiply(part, its_scales, its)
