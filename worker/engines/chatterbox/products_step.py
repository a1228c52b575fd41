"""The products of the decoder of tokens, whose steps have one row or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels import Layer, linear
from worker.precision import Precision

FEW = 2
"""Float32 products of so many rows, one utterance's, are a sixth quicker by MKL with the weights where they lie."""


def product(weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int, activation: str = "none") -> Layer:
    """A linear layer as `kernels.linear` makes it, for steps of up to about `rows` rows."""
    many = linear(weight, bias, precision, rows=rows, activation=activation)
    return _FewOrMany(weight, bias, activation, many) if precision is Precision.FP32 else many


def products(layers: Sequence[Any], precision: Precision, *, rows: int) -> Layer:
    """Linear modules of the same input as one, their outputs side by side."""
    if precision is Precision.FP32:
        # Each keeps its place on the mapped file.
        return _SideBySide([product(layer.weight, layer.bias, precision, rows=rows) for layer in layers])
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return product(weight, bias, precision, rows=rows)


class _FewOrMany:
    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str, many: Layer) -> None:
        self._weight, self._bias = weight, bias
        self._activation, _, self._kind = activation.partition("-")
        self._many = many

    def __call__(self, states: Tensor) -> Tensor:
        if len(states) > FEW:
            return self._many(states)
        out = F.linear(states, self._weight, self._bias)
        return F.gelu(out, approximate=self._kind or "none") if self._activation == "gelu" else out


class _SideBySide:
    def __init__(self, parts: Sequence[Layer]) -> None:
        self._parts = parts

    def __call__(self, states: Tensor) -> Tensor:
        return torch.cat([part(states) for part in self._parts], -1)
