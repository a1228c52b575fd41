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
    """See `kernels.convolution`: in the precision of its weight."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, stride: int, dilation: int
    ) -> None:
        self._shape = [1, stride], [1, dilation]
        self._before, self._after = before, after
        # An even padding is left to oneDNN, an uneven one is written out.
        self._padding = [0, before if before == after else 0]
        self._weight = _mkldnn._reorder_convolution_weight(
            weight[:, :, None].contiguous(), self._padding, *self._shape, 1, None
        )
        self._bias = None if bias is None else bias.to(weight.dtype)

    def __call__(self, states: Tensor) -> Tensor:
        """The convolution of `states`, in the precision of the weight."""
        states = states.to(self._weight.dtype)
        if self._before != self._after:
            states = F.pad(states, (0, 0, self._before, self._after))
        stride, dilation = self._shape
        return _as_time(
            _mkldnn._convolution_pointwise(
                _as_image(states), self._weight, self._bias, self._padding, stride, dilation, 1, "none", [], ""
            )
        )


class TransposedConvolution:
    """See `kernels.transposed_convolution`: in the precision of its weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int) -> None:
        self._arguments: list[Any] = [[0, padding], [0, 0], [1, stride], [1, 1], 1]
        self._weight = _mkldnn._reorder_convolution_transpose_weight(
            weight[:, :, None].contiguous(), *self._arguments, None
        )
        self._bias = None if bias is None else bias.to(weight.dtype)

    def __call__(self, states: Tensor) -> Tensor:
        """The longer states, in the precision of the weight."""
        image = _as_image(states.to(self._weight.dtype).contiguous())
        return _as_time(
            _mkldnn._convolution_transpose_pointwise(image, self._weight, self._bias, *self._arguments, "none", [], "")
        )


def _as_image(states: Tensor) -> Tensor:
    """(batch, time, channels) as oneDNN's convolutions know it: one line of (batch, channels, 1, time)."""
    return states.unsqueeze(1).permute(0, 3, 1, 2)


def _as_time(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).squeeze(1)
