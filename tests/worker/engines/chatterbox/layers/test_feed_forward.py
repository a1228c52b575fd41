"""The feed-forward of a layer in each precision against the definition, in float64."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor, nn

from tests.support.precisions import MAX_ERROR, precision_params, relative_error
from tests.support.tiles import WITHOUT_TILES, needs_tiles
from worker.engines.chatterbox.kernels import packed_gemm
from worker.engines.chatterbox.layers.feed_forward import feed_forward
from worker.precision import Precision

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu}


def parts(width: int, hidden: int) -> tuple[nn.LayerNorm, nn.Linear, nn.Linear]:
    """A layer norm with weights of its own, and the two linear layers."""
    norm = nn.LayerNorm(width)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    return norm, nn.Linear(width, hidden), nn.Linear(hidden, width)


@pytest.mark.parametrize("precision", precision_params())
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 33, 127, 128, 129, 300])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward(precision: Precision, rows: int, activation: str) -> None:
    norm, up, down = parts(64, 256)
    layer = feed_forward(norm, up, down, precision, activation=activation)
    states = 3 * torch.randn(rows, 64) + torch.randn(rows, 1)
    norm, up, down = (deepcopy(part).double() for part in (norm, up, down))
    expected = down(ACTIVATIONS[activation](up(norm(states.double()))))
    assert relative_error(layer(states).double() - states, expected) < MAX_ERROR[precision]


@pytest.mark.parametrize("precision", precision_params([Precision.INT8]))
@pytest.mark.parametrize(("width", "hidden"), [(48, 80), (64, 80), (80, 64), (512, 2048)])
def test_widths(precision: Precision, width: int, hidden: int) -> None:
    norm, up, down = parts(width, hidden)
    layer = feed_forward(norm, up, down, precision, activation="gelu")
    states = torch.randn(2, 50, width)
    found = layer(states)
    assert found.shape == states.shape
    assert relative_error(found - states, down(F.gelu(up(norm(states))))) < MAX_ERROR[precision]


@pytest.mark.parametrize("precision", precision_params([Precision.INT8]))
def test_a_row_does_not_depend_on_the_others(precision: Precision) -> None:
    layer = feed_forward(*parts(64, 256), precision, activation="gelu")
    states = torch.randn(200, 64)
    assert torch.equal(layer(states)[130:150], layer(states[130:150]))


@needs_tiles
@pytest.mark.parametrize("rows", [1, 16, 200])
def test_matrix_tiles_give_the_numbers_of_vectors(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    modules = parts(64, 256)
    states = torch.randn(rows, 64)
    tiled = feed_forward(*modules, Precision.INT8, activation="silu")(states)
    monkeypatch.setattr(packed_gemm, "TARGET", WITHOUT_TILES)
    assert torch.equal(tiled, feed_forward(*modules, Precision.INT8, activation="silu")(states))
