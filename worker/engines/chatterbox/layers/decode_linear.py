"""Linear layers of T3, the decoder of speech tokens, whose steps have few rows: one or two per utterance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import PackedLinearF32, PackedLinearInt8
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision, detect_processor

MAX_MKL_ROWS = 2
"""Without AVX-512, MKL computes float32 products of at most so many rows a sixth faster, with the weight as it is."""


def decode_linear(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int, activation: str = "none"
) -> Layer:
    """A linear layer as `linear.linear` makes it, for steps of up to about `rows` rows."""
    if precision is Precision.INT8:
        return PackedLinearInt8(weight, bias, activation)
    if precision is Precision.FP32 and "avx512f" in detect_processor().instruction_sets:
        return PackedLinearF32(weight, bias, activation)
    many_rows = linear(weight, bias, precision, rows=rows, activation=activation)
    return _LinearByRows(weight, bias, activation, many_rows) if precision is Precision.FP32 else many_rows


def fused_decode_linear(layers: Sequence[Any], precision: Precision, *, rows: int) -> Layer:
    """PyTorch's linear modules of one input, fused into one layer: their outputs side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return decode_linear(weight, bias, precision, rows=rows)


class _LinearByRows:
    """A float32 layer that computes up to MAX_MKL_ROWS rows by MKL, and more by oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str, many_rows: Layer) -> None:
        self._weight, self._bias, self._many_rows = weight, bias, many_rows
        self._activation, _, approximation = activation.partition("-")
        self._approximation = approximation or "none"

    def __call__(self, states: Tensor) -> Tensor:
        if len(states) > MAX_MKL_ROWS:
            return self._many_rows(states)
        out = F.linear(states, self._weight, self._bias)
        return F.gelu(out, approximate=self._approximation) if self._activation == "gelu" else out
