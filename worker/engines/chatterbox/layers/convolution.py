"""Products in float32 or bfloat16, as oneDNN computes them.

PyTorch on CPUs computes float32 products by MKL, which leaves half of an AMD core's AVX-512 unused, and its
convolutions re-order what they are given. The operators below are those that PyTorch's own compiler calls for oneDNN:
they take weights where they lie, on the mapped file that all workers share, or laid out anew, and activations with the
channels last, where a convolution finds them as it needs them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

_mkldnn: Any = torch.ops.mkldnn

_BLOCK_NUMBERS = 2**16
"""Numbers that a convolution makes at a time: little is made past the end, and calls are few."""


class FloatLinear:
    """See `kernels.linear`: in the precision of its weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str, rows: int | None) -> None:
        if rows is not None or weight.dtype != torch.float32:
            weight = _mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        self._weight = weight
        self._bias = None if bias is None else bias.to(weight.dtype)
        self._activation, _, algorithm = activation.partition("-")
        self._algorithm = algorithm or "none"

    def __call__(self, states: Tensor) -> Tensor:
        """The product, in the precision of the weight."""
        product: Tensor = _mkldnn._linear_pointwise(
            states.to(self._weight.dtype), self._weight, self._bias, self._activation, [], self._algorithm
        )
        return product


class FloatConvolution:
    """See `kernels.convolution`; of a stride of 1, in the precision of its weight.

    Time is gone through in blocks of one length, for which oneDNN compiles once: a length of its own would cost every
    utterance as much as the work itself.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, dilation: int) -> None:
        self._outputs, inputs, taps = weight.shape
        self._around = before, after
        self._reach = (taps - 1) * dilation
        self._block = max(1, _BLOCK_NUMBERS // self._outputs)
        self._dilation = [1, dilation]
        # Without the size oneDNN would lay the weight out anew with every call.
        size = [1, inputs, 1, self._block + self._reach]
        self._weight = _mkldnn._reorder_convolution_weight(
            weight[:, :, None].contiguous(), [0, 0], [1, 1], self._dilation, 1, size
        )
        self._bias = None if bias is None else bias.to(weight.dtype)

    def __call__(self, states: Tensor) -> Tensor:
        """The convolution of `states`, in the precision of the weight."""
        before, after = self._around
        count = states.shape[1] + before + after - self._reach
        past = -count % self._block
        states = F.pad(states.to(self._weight.dtype), (0, 0, before, after + past))
        out = torch.empty(len(states), count, self._outputs, dtype=states.dtype)
        for one, its in zip(states, out, strict=True):
            for first in range(0, count, self._block):
                # Not a slice of the batch, whose stride oneDNN would take for another shape.
                part = its[first : first + self._block]
                part[:] = self._convolved(one[None, first : first + self._block + self._reach])[0, : len(part)]
        return out

    def _convolved(self, states: Tensor) -> Tensor:
        image = _mkldnn._convolution_pointwise(
            _as_image(states), self._weight, self._bias, [0, 0], [1, 1], self._dilation, 1, "none", [], ""
        )
        return _as_time(image)


def _as_image(states: Tensor) -> Tensor:
    """(batch, time, channels) as oneDNN's convolutions know it: one line of (batch, channels, 1, time)."""
    return states.unsqueeze(1).permute(0, 3, 1, 2)


def _as_time(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).squeeze(1)
