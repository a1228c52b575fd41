"""The feed-forward of a transformer's layer in float32, bfloat16 and int8."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.feed_forward_int8 import FeedForwardInt8
from worker.engines.chatterbox.layers.layer_norm import layer_norm
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision


def feed_forward(norm: Any, up: Any, down: Any, precision: Precision, *, activation: str) -> Layer:
    """Layer norm, two products with an activation between them, and the residual: float32 (…, width) to the same shape.

    `norm` is a layer norm, `up` and `down` are linear layers of PyTorch; the activation is gelu or silu.
    """
    if precision is Precision.INT8:
        kernel = FeedForwardInt8(norm, up, down, activation)
        return lambda states: kernel(states.reshape(-1, states.shape[-1])).view(states.shape)
    # oneDNN has no SiLU in its products.
    silu = activation == "silu"
    up_projection = linear(up.weight, up.bias, precision, activation="none" if silu else activation)
    down_projection = linear(down.weight, down.bias, precision)

    def layer(states: Tensor) -> Tensor:
        hidden = up_projection(layer_norm(states, norm))
        return states + down_projection(F.silu(hidden) if silu else hidden)

    return layer
