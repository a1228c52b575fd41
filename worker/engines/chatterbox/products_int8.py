"""Products of bytes: weights with a scale for each channel, activations with one for each row, or window of rows.

So what comes of a position depends on nothing but what the position is made from: never on others of a batch. oneDNN
multiplies and adds in whole numbers; the scales are applied to its sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.rows_int8 import (
    MIDDLE,
    quantized,
    quantized_weight,
    quantized_windows,
    scaled,
    scaled_gelu,
    sizes,
)

_onednn: Any = torch.ops.onednn

_WINDOW_BYTES = 2**19
"""Windows are multiplied so many bytes at a time, which a core's second cache holds beside their products."""
_ROWS = 64
"""Windows at a time are a multiple of these."""


class _Bytes:
    """A weight, float32 (outputs, inputs), as signed bytes."""

    def __init__(self, weight: Tensor) -> None:
        whole, self._scales = quantized_weight(weight)
        self._weight = _onednn.qlinear_prepack(whole.contiguous(), None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)

    def times(self, rows: Tensor) -> Tensor:
        """Unsigned bytes around MIDDLE, (rows, inputs), times the weight: float32 (rows, outputs), not yet scaled."""
        product: Tensor = _onednn.qlinear_pointwise(
            rows, 1.0, int(MIDDLE), self._weight, self._scales, self._zeros,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


class Int8Linear:
    """See `kernels.linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        self._bytes = _Bytes(weight)
        self._bias = bias
        self._activation = activation

    def __call__(self, states: Tensor) -> Tensor:
        """The product, in float32."""
        rows, scales = quantized(states.reshape(-1, states.shape[-1]))
        product = self._bytes.times(rows)
        if self._activation == "gelu":
            scaled_gelu(product, scales, self._bias)
        else:
            scaled(product, scales, self._bias, product)
        product = product.view(*states.shape[:-1], -1)
        if self._activation == "gelu-tanh":
            return F.gelu(product, approximate="tanh")
        return product.relu_() if self._activation == "relu" else product


class Int8Convolution:
    """See `kernels.convolution`; of a stride of 1. What is multiplied are windows of rows side by side."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, dilation: int) -> None:
        outputs, inputs, self._taps = weight.shape
        self._bytes = _Bytes(weight.transpose(1, 2).reshape(outputs, -1))
        self._bias = bias
        self._outputs, self._width, self._dilation = outputs, self._taps * inputs, dilation
        self._around = (0, 0, before, after)
        self._windows = max(1, min(512, _WINDOW_BYTES // self._width) // _ROWS) * _ROWS

    def __call__(self, states: Tensor) -> Tensor:
        """The convolution of `states`, in float32."""
        states = F.pad(states, self._around)
        out = torch.empty(len(states), states.shape[1] - (self._taps - 1) * self._dilation, self._outputs)
        for one, its in zip(states, out, strict=True):
            self._convolve(one, its)
        return out

    def _convolve(self, states: Tensor, out: Tensor) -> None:
        of_rows = sizes(states)
        windows, scales = torch.zeros(self._windows, self._width, dtype=torch.uint8), torch.zeros(self._windows)
        for first in range(0, len(out), self._windows):
            quantized_windows(states, of_rows, first, self._taps, self._dilation, windows, scales)
            # All products have one shape, for which oneDNN compiles once; what is past the end is not looked at.
            scaled(self._bytes.times(windows), scales, self._bias, out[first : first + self._windows])
