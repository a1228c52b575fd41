"""Linear layers in each precision against PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it

from tests.support.precisions import MAX_ERROR, precision_params, relative_error
from worker.engines.chatterbox.layers.linear import linear
from worker.precision import Precision

in_each = pytest.mark.parametrize("precision", precision_params())


@in_each
@pytest.mark.parametrize("rows", [None, 8])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("activation", "after"),
    [("none", lambda x: x), ("relu", F.relu), ("gelu", F.gelu), ("gelu-tanh", lambda x: F.gelu(x, approximate="tanh"))],
)
def test_a_linear_layer(precision: Precision, rows: int | None, bias: bool, activation: str, after: Any) -> None:
    weight, shift = torch.randn(96, 64), torch.randn(96) if bias else None
    states = torch.randn(5, 3, 64) * torch.tensor([0.01, 1.0, 100.0])[:, None]
    layer = linear(weight, shift, precision, rows=rows, activation=activation)
    for found, one in zip(layer(states).float(), states, strict=True):
        assert relative_error(found, after(F.linear(one, weight, shift))) < MAX_ERROR[precision]


@pytest.mark.parametrize("precision", precision_params([Precision.BF16, Precision.INT8]))
def test_a_row_comes_out_the_same_whichever_rows_stand_beside_it(precision: Precision) -> None:
    layer = linear(torch.randn(128, 64), torch.randn(128), precision)
    states = torch.randn(40, 64)
    together = layer(states)
    loud = torch.cat([states[3:4], 1e4 * torch.randn(7, 64)])
    assert torch.equal(layer(loud)[0], together[3])
    assert torch.equal(layer(states[3:4])[0], together[3])


@in_each
def test_a_row_of_zeros_is_the_bias(precision: Precision) -> None:
    bias = torch.randn(32)
    found = linear(torch.randn(32, 16), bias, precision)(torch.zeros(2, 16))
    assert relative_error(found.float(), bias.expand(2, -1)) < 5e-3
