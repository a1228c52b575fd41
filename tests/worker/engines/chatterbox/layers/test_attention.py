"""Attention layers in each precision against the definition, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor, nn

from tests.support.precisions import MAX_ERROR, precision_params, relative_error
from worker.engines.chatterbox.layers.attention import relative_attention, self_attention
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision

in_each = pytest.mark.parametrize("precision", precision_params())


def exact_attention(states: Tensor, weights: Tensor, heads: int) -> Tensor:
    """Self-attention by its definition, computed in float64."""
    queries, keys, values = (
        (states.double() @ weight.double().t()).view(len(states), heads, -1).transpose(0, 1) for weight in weights
    )
    scores = queries @ keys.transpose(1, 2) * queries.shape[-1] ** -0.5
    return (torch.softmax(scores, -1) @ values).transpose(0, 1).flatten(1).float()


def self_attention_of(weights: Tensor, heads: int, precision: Precision) -> Layer:
    """Self-attention behind a layer norm that only normalizes."""
    return self_attention(nn.LayerNorm(weights.shape[2]), weights[0], weights[1], weights[2], heads, precision)


def normed(states: Tensor) -> Tensor:
    return F.layer_norm(states, states.shape[-1:])


@in_each
@pytest.mark.parametrize("time", [1, 2, 5, 63, 64, 65, 700, 1111])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0], ids="spread {}".format)
def test_self_attention(precision: Precision, time: int, spread: float) -> None:
    weights = torch.randn(3, 128, 48) / 48**0.5
    weights[0] *= spread
    states = torch.randn(time, 48)
    found = self_attention_of(weights, 2, precision)(states).float()
    expected = exact_attention(normed(states), weights, 2)
    # An average over many values cancels out, and widely spread scores come from large products.
    assert float((found - expected).abs().max()) < MAX_ERROR[precision] * (1 + 2 * spread) * float(states.abs().max())


@pytest.mark.parametrize("precision", precision_params([Precision.INT8]))
@pytest.mark.parametrize("heads", [2, 4, 8], ids="{} heads".format)
def test_heads_of_other_widths(precision: Precision, heads: int) -> None:
    weights = torch.randn(3, 128, 64) / 8
    states = torch.randn(100, 64)
    found = self_attention_of(weights, heads, precision)(states)
    assert relative_error(found, exact_attention(normed(states), weights, heads)) < MAX_ERROR[precision]


@in_each
@pytest.mark.parametrize("time", [1, 2, 5, 6, 7, 63, 64, 65, 130, 345])
@pytest.mark.parametrize("width", [32, 64])
def test_relative_attention(precision: Precision, time: int, width: int) -> None:
    queries, keys, values, distance_queries = torch.randn(4, time, 2 * width)
    distance_keys = torch.randn(2 * time - 1, 2 * width)
    dtype = torch.bfloat16 if precision is Precision.BF16 else torch.float32
    layer = relative_attention(2, width, precision)
    found = layer(queries, keys.to(dtype), values.to(dtype), distance_queries, distance_keys.to(dtype))
    for head in range(2):
        columns = slice(head * width, (head + 1) * width)
        scores = queries[:, columns].double() @ keys[:, columns].double().t()
        for one in range(time):
            # From the other position at 0 on: distances of `one`, `one` - 1, and so on.
            key_rows = distance_keys[time - 1 - one : 2 * time - 1 - one, columns].double()
            scores[one] += key_rows @ distance_queries[one, columns].double()
        expected = torch.softmax(scores * width**-0.5, -1) @ values[:, columns].double()
        tolerance = 0.05 if precision is Precision.BF16 else 1e-5
        assert (found[:, columns].double() - expected).abs().max() < tolerance
