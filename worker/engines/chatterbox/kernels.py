"""Products as oneDNN computes them, in each precision: what the decoder of tokens and that of sound are built from.

PyTorch on CPUs computes float32 products by MKL, which leaves half of an AMD core's AVX-512 unused, and its
convolutions re-order what they are given. The operators below are those that PyTorch's own compiler calls for oneDNN:
they take weights where they lie, on the mapped file that all workers share, or laid out anew, and activations with the
channels last, where a convolution finds them as it needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.attention_int8 import attention_int8
from worker.engines.chatterbox.rows_int8 import MIDDLE, quantized, scaled
from worker.precision import Precision

_mkldnn: Any = torch.ops.mkldnn
_onednn: Any = torch.ops.onednn


class Linear(Protocol):
    """States times weights plus bias: (…, inputs) to (…, outputs)."""

    def __call__(self, states: Tensor) -> Tensor:
        """Takes float32; gives float32 or bfloat16."""


def linear(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int | None = None, activation: str = "none"
) -> Linear:
    """A linear layer of `weight` (outputs, inputs) and `bias` (outputs,), float32, with an `activation` after it.

    `rows` lays float32 weights out for so many rows, in a copy of this process's own: for a few rows of large weights
    that is worth a fifth of the time and more, for hundreds of rows nothing. The activation is none, relu, gelu, or
    gelu-tanh.
    """
    if precision is Precision.INT8:
        return _Int8Linear(weight, bias, activation)
    if precision is Precision.BF16:
        bias = None if bias is None else bias.bfloat16()
        return _Linear(_mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), rows), bias, activation)
    if rows is not None:
        weight = _mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return _Linear(weight, bias, activation)


class _Linear:
    """In the precision of its weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        self._weight, self._bias = weight, bias
        self._activation, _, algorithm = activation.partition("-")
        self._algorithm = algorithm or "none"

    def __call__(self, states: Tensor) -> Tensor:
        product: Tensor = _mkldnn._linear_pointwise(
            states.to(self._weight.dtype), self._weight, self._bias, self._activation, [], self._algorithm
        )
        return product


_MOST = 127
"""Of a weight's signed byte."""


class _Int8Linear:
    """Weights scaled channel by channel when it is built, activations position by position as they come."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        scales = (weight.abs().amax(1) / _MOST).clamp(min=torch.finfo(torch.float32).tiny)
        whole = (weight / scales[:, None]).round().to(torch.int8)
        self._weight = _onednn.qlinear_prepack(whole.contiguous(), None)
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int64)
        self._bias = bias
        self._activation, _, algorithm = activation.partition("-")
        self._algorithm = algorithm or "none"

    def __call__(self, states: Tensor) -> Tensor:
        whole, scales = quantized(states.reshape(-1, states.shape[-1]))
        product: Tensor = _onednn.qlinear_pointwise(
            whole, 1.0, MIDDLE, self._weight, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        product = scaled(product, scales, self._bias).view(*states.shape[:-1], -1)
        if self._activation == "gelu":
            return F.gelu(product, approximate=self._algorithm)
        return product.relu_() if self._activation == "relu" else product


class Convolution:
    """A convolution over time with the channels last: (batch, time, inputs) to (batch, time, outputs).

    `before` and `after` are the zeros that time is lengthened by. In int8 it is computed in float32: a scale for each
    position cannot be taken out of a sum over positions.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        precision: Precision,
        *,
        before: int = 0,
        after: int = 0,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        self._dtype = _floating(precision)
        self._shape = [1, stride], [1, dilation]
        self._before, self._after = before, after
        # An even padding is left to oneDNN, an uneven one is written out.
        self._padding = [0, before if before == after else 0]
        self._weight = _mkldnn._reorder_convolution_weight(
            weight[:, :, None].to(self._dtype).contiguous(), self._padding, *self._shape, 1, None
        )
        self._bias = None if bias is None else bias.to(self._dtype)

    def __call__(self, states: Tensor) -> Tensor:
        """The convolution of `states`, in the precision's floating numbers."""
        states = states.to(self._dtype)
        if self._before != self._after:
            states = F.pad(states, (0, 0, self._before, self._after))
        stride, dilation = self._shape
        out = _mkldnn._convolution_pointwise(
            _as_image(states), self._weight, self._bias, self._padding, stride, dilation, 1, "none", [], ""
        )
        return _as_time(out)


class TransposedConvolution:
    """A convolution that lengthens time by `stride`, channels last as above."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: Precision, *, stride: int, padding: int) -> None:
        self._dtype = _floating(precision)
        self._arguments: list[Any] = [[0, padding], [0, 0], [1, stride], [1, 1], 1]
        self._weight = _mkldnn._reorder_convolution_transpose_weight(
            weight[:, :, None].to(self._dtype).contiguous(), *self._arguments, None
        )
        self._bias = None if bias is None else bias.to(self._dtype)

    def __call__(self, states: Tensor) -> Tensor:
        """The longer states, in the precision's floating numbers."""
        image = _as_image(states.to(self._dtype).contiguous())
        return _as_time(
            _mkldnn._convolution_transpose_pointwise(image, self._weight, self._bias, *self._arguments, "none", [], "")
        )


def self_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, precision: Precision
) -> Callable[[Tensor], Tensor]:
    """What each position of float32 (time, width) hears of all, (time, outputs), by some heads.

    The weights are float32 (outputs, width), without bias.
    """
    if precision is Precision.INT8:
        mix = linear(torch.cat([query, key, value]), None, precision)
        return lambda states: attention_int8(mix(states), heads)
    layers = [linear(weight, None, precision) for weight in (query, key, value)]
    return lambda states: attention(*(by_head(layer(states), heads) for layer in layers))


def attention(queries: Tensor, keys: Tensor, values: Tensor, biases: Tensor | None = None) -> Tensor:
    """What each position hears of all: (heads, time, width), to (time, heads * width).

    `biases`, (heads, time, time), are added to the scaled scores.
    """
    heard = F.scaled_dot_product_attention(
        queries[None], keys[None], values[None], attn_mask=None if biases is None else biases[None]
    )
    return heard[0].transpose(0, 1).flatten(1)


def by_head(states: Tensor, heads: int) -> Tensor:
    """(time, heads * width) to (heads, time, width)."""
    return states.view(len(states), heads, -1).transpose(0, 1)


def _floating(precision: Precision) -> torch.dtype:
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32


def _as_image(states: Tensor) -> Tensor:
    """(batch, time, channels) as oneDNN's convolutions know it: one line of (batch, channels, 1, time)."""
    return states.unsqueeze(1).permute(0, 3, 1, 2)


def _as_time(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).squeeze(1)
