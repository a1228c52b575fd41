"""The products of the decoder of tokens, whose steps have one row or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import ByteStrips, FloatStrips
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision, detect_processor

FEW = 2
"""Without AVX-512, float32 products of so many rows are a sixth quicker by MKL with the weights where they lie."""


def product(weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int, activation: str = "none") -> Layer:
    """A linear layer as `kernels.linear` makes it, for steps of up to about `rows` rows."""
    has = detect_processor().instruction_sets
    if precision is Precision.INT8 or (precision is Precision.FP32 and "avx512f" in has):
        return (ByteStrips if precision is Precision.INT8 else FloatStrips)(weight, bias, activation)
    many = linear(weight, bias, precision, rows=rows, activation=activation)
    return _FewOrMany(weight, bias, activation, many) if precision is Precision.FP32 else many


def products(layers: Sequence[Any], precision: Precision, *, rows: int) -> Layer:
    """Linear modules of the same input as one, their outputs side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return product(weight, bias, precision, rows=rows)


class _FewOrMany:
    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str, many: Layer) -> None:
        self._weight, self._bias, self._many = weight, bias, many
        self._activation, _, kind = activation.partition("-")
        self._kind = kind or "none"

    def __call__(self, states: Tensor) -> Tensor:
        if len(states) > FEW:
            return self._many(states)
        out = F.linear(states, self._weight, self._bias)
        return F.gelu(out, approximate=self._kind) if self._activation == "gelu" else out
