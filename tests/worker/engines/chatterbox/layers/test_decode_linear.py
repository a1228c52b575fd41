"""Linear layers of a decode step against PyTorch's own, for one row and for many, whichever library computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import nn

from tests.support.precisions import precision_params
from worker.engines.chatterbox.layers import decode_linear as module
from worker.engines.chatterbox.layers.decode_linear import decode_linear, fused_decode_linear
from worker.precision import Precision

TOLERANCES = {Precision.FP32: 1e-5, Precision.BF16: 0.03, Precision.INT8: 0.05}
ACTIVATIONS: dict[str, Any] = {
    "none": lambda states: states,
    "gelu": F.gelu,
    "gelu-tanh": lambda states: F.gelu(states, approximate="tanh"),
}


@pytest.mark.parametrize("precision", precision_params(TOLERANCES))
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_any_number_of_rows(precision: Precision, activation: str, bias: bool, rows: int) -> None:
    torch.manual_seed(rows)
    layer = nn.Linear(128, 192, bias=bias).requires_grad_(False)
    states = torch.randn(rows, 128)
    expected = ACTIVATIONS[activation](layer(states))
    found = decode_linear(layer.weight, layer.bias, precision, rows=8, activation=activation)(states)
    assert (found.float() - expected).abs().max() < TOLERANCES[precision]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_without_kernels_of_our_own(monkeypatch: pytest.MonkeyPatch, activation: str, rows: int) -> None:
    monkeypatch.setattr(module, "packs_decode_products", lambda: False)
    layer = nn.Linear(128, 192).requires_grad_(False)
    states = torch.randn(rows, 128)
    found = decode_linear(layer.weight, layer.bias, Precision.FP32, rows=8, activation=activation)(states)
    assert (found - ACTIVATIONS[activation](layer(states))).abs().max() < TOLERANCES[Precision.FP32]


def test_a_transposed_weight() -> None:
    layer = nn.Linear(128, 192).requires_grad_(False)
    transposed = layer.weight.t().contiguous().t()
    for rows in (1, 9):
        states = torch.randn(rows, 128)
        found = decode_linear(transposed, layer.bias, Precision.FP32, rows=8)(states)
        assert (found - layer(states)).abs().max() < 1e-5


@pytest.mark.parametrize("precision", precision_params(TOLERANCES))
@pytest.mark.parametrize("bias", [True, False])
def test_fused_layers(precision: Precision, bias: bool) -> None:
    layers = [nn.Linear(128, outputs, bias=bias).requires_grad_(False) for outputs in (64, 128, 192)]
    for rows in (1, 5):
        states = torch.randn(rows, 128)
        expected = torch.cat([layer(states) for layer in layers], -1)
        found = fused_decode_linear(layers, precision, rows=8)(states)
        assert (found.float() - expected).abs().max() < TOLERANCES[precision]
