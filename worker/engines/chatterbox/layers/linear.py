"""Linear layers in float32, bfloat16 and int8.

Int8 weights have a scale for each channel, activations one for each row. So what comes of a position depends on nothing
but what the position is made from: never on others of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import ByteStrips
from worker.engines.chatterbox.layers.onednn import Layer, float_dtype, mkldnn
from worker.precision import Precision


def linear(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int | None = None, activation: str = "none"
) -> Layer:
    """States times weights plus bias, (…, inputs) to (…, outputs), with an `activation` after it.

    `weight` is float32 (outputs, inputs), `bias` (outputs,). `rows` lays float32 weights out for so many rows, in a
    copy of this process's own: for a few rows of large weights that is worth a fifth of the time and more, for
    hundreds of rows nothing. The activation is none, relu, gelu, or gelu-tanh.
    """
    if precision is Precision.INT8:
        return Int8Linear(weight, bias, activation)
    return FloatLinear(weight.to(float_dtype(precision)), bias, activation, rows)


class FloatLinear:
    """See `kernels.linear`: in the precision of its weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str, rows: int | None) -> None:
        if rows is not None or weight.dtype != torch.float32:
            weight = mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        self._weight = weight
        self._bias = None if bias is None else bias.to(weight.dtype)
        self._activation, _, algorithm = activation.partition("-")
        self._algorithm = algorithm or "none"

    def __call__(self, states: Tensor) -> Tensor:
        """The product, in the precision of the weight."""
        product: Tensor = mkldnn._linear_pointwise(
            states.to(self._weight.dtype), self._weight, self._bias, self._activation, [], self._algorithm
        )
        return product


class Int8Linear:
    """See `kernels.linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        relu = activation == "relu"
        self._strips, self._relu = ByteStrips(weight, bias, "none" if relu else activation), relu

    def __call__(self, states: Tensor) -> Tensor:
        """The product, in float32."""
        product = self._strips(states.reshape(-1, states.shape[-1])).view(*states.shape[:-1], -1)
        return product.relu_() if self._relu else product
