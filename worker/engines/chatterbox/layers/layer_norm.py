"""Layer norm over the last dimension."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def layer_norm(states: Tensor, norm: nn.LayerNorm | Any) -> Tensor:
    """The layer norm `norm` over the last dimension, computed in float32."""
    return torch.layer_norm(states.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
