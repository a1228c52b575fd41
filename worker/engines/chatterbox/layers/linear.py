"""Linear layers in float32, bfloat16 and int8.

In int8, weights have a scale for each output, and activations one for each row. So the output of a position depends on
nothing but its own states, and never on others of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import PackedLinearInt8
from worker.engines.chatterbox.layers.onednn import Layer, float_dtype, mkldnn
from worker.precision import Precision


def linear(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int | None = None, activation: str = "none"
) -> Layer:
    """A linear layer, states times weight plus bias: (…, inputs) to (…, outputs), with an activation after it.

    `weight` is float32 (outputs, inputs), `bias` (outputs,). `rows` lays float32 weights out for so many rows, in a
    copy of this process's own: for a few rows of a large weight that saves a fifth of the time and more, for hundreds
    of rows nothing. The activation is none, relu, gelu, or gelu-tanh.
    """
    if precision is Precision.INT8:
        return Int8Linear(weight, bias, activation)
    return FloatLinear(weight.to(float_dtype(precision)), bias, activation, rows)


class FloatLinear:
    """A linear layer by oneDNN, in the precision of its weight: see `linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str, rows: int | None) -> None:
        if rows is not None or weight.dtype != torch.float32:
            weight = mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        self._weight = weight
        self._bias = None if bias is None else bias.to(weight.dtype)
        self._activation, _, approximation = activation.partition("-")
        self._approximation = approximation or "none"

    def __call__(self, states: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs), in the precision of the weight."""
        out: Tensor = mkldnn._linear_pointwise(
            states.to(self._weight.dtype), self._weight, self._bias, self._activation, [], self._approximation
        )
        return out


class Int8Linear:
    """A linear layer in int8: see `linear`. The packed product has no relu, which is applied after it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        relu = activation == "relu"
        self._product, self._relu = PackedLinearInt8(weight, bias, "none" if relu else activation), relu

    def __call__(self, states: Tensor) -> Tensor:
        """(…, inputs) to float32 (…, outputs)."""
        out = self._product(states.reshape(-1, states.shape[-1])).view(*states.shape[:-1], -1)
        return out.relu_() if self._relu else out
