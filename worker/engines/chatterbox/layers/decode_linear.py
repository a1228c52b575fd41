"""Linear layers of T3, the decoder of speech tokens, whose steps have few rows: one or two per utterance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import PackedLinearF32, PackedLinearInt8
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.engines.chatterbox.layers.selection import packs_decode_products
from worker.precision import Precision


def decode_linear(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int, activation: str = "none"
) -> Layer:
    """A linear layer as `linear.linear` makes it, for steps of up to about `rows` rows."""
    if precision is Precision.INT8:
        return PackedLinearInt8(weight, bias, activation)
    if precision is Precision.FP32 and packs_decode_products():
        return PackedLinearF32(weight, bias, activation)
    return linear(weight, bias, precision, rows=rows, activation=activation)


def fused_decode_linear(layers: Sequence[Any], precision: Precision, *, rows: int) -> Layer:
    """PyTorch's linear modules of one input, fused into one layer: their outputs side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return decode_linear(weight, bias, precision, rows=rows)
