"""Products of few rows: the same numbers as PyTorch's, and the same for a row whichever rows stand beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from tests.support.precisions import MAX_ERROR, precision_params, relative_error
from tests.support.tiles import WITHOUT_TILES, needs_tiles
from worker.engines.chatterbox.kernels import packed_gemm
from worker.engines.chatterbox.kernels.packed_gemm import PackedLinearF32, PackedLinearInt8
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision

LAYERS: dict[Precision, Callable[..., Layer]] = {
    Precision.FP32: PackedLinearF32,
    Precision.INT8: PackedLinearInt8,
}
in_each = pytest.mark.parametrize("precision", precision_params(LAYERS))


@pytest.fixture(autouse=True)
def seeded_inference() -> Iterator[None]:
    torch.manual_seed(6)
    with torch.inference_mode():
        yield


@in_each
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 8, 12, 13, 16, 24, 25, 64, 100])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (128, 70), (1024, 16), (2064, 192)])
@pytest.mark.parametrize("bias", [True, False])
def test_any_number_of_rows(precision: Precision, rows: int, inputs: int, outputs: int, bias: bool) -> None:
    weight, shift = torch.randn(outputs, inputs), torch.randn(outputs) if bias else None
    states = torch.randn(rows, inputs) * torch.logspace(-3, 3, rows)[:, None]
    out = LAYERS[precision](weight, shift)(states)
    for row_out, row in zip(out, states, strict=True):
        assert relative_error(row_out, F.linear(row, weight, shift)) < MAX_ERROR[precision]


@in_each
def test_a_row_comes_out_the_same_whichever_rows_stand_beside_it(precision: Precision) -> None:
    layer = LAYERS[precision](torch.randn(200, 512), torch.randn(200))
    states = torch.randn(40, 512)
    together = layer(states)
    for count in (1, 5, 9, 20, 40):
        assert torch.equal(layer(states[40 - count :]), together[40 - count :])


@needs_tiles
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (256, 70), (1024, 192)])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_matrix_tiles_give_the_numbers_of_vectors(
    monkeypatch: pytest.MonkeyPatch, inputs: int, outputs: int, activation: str
) -> None:
    layer = PackedLinearInt8(torch.randn(outputs, inputs), torch.randn(outputs), activation)
    states = torch.randn(77, inputs)
    counts = (15, 16, 17, 31, 32, 33, 64, 77)
    tiled = [layer(states[:count]) for count in counts]
    monkeypatch.setattr(packed_gemm, "TARGET", WITHOUT_TILES)
    for out, count in zip(tiled, counts, strict=True):
        assert torch.equal(out, layer(states[:count]))


@in_each
def test_a_transposed_weight(precision: Precision) -> None:
    weight, states = torch.randn(128, 192), torch.randn(9, 128)
    out = LAYERS[precision](weight.t(), None)(states)
    assert relative_error(out, states @ weight) < MAX_ERROR[precision]


@in_each
def test_states_that_are_not_contiguous(precision: Precision) -> None:
    weight, states = torch.randn(64, 32), torch.randn(9, 64)
    layer = LAYERS[precision](weight, None)
    assert torch.equal(layer(states[:, ::2]), layer(states[:, ::2].contiguous()))


@in_each
@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("outputs", [64, 90])
@pytest.mark.parametrize(
    ("activation", "function"),
    [("gelu", F.gelu), ("gelu-tanh", partial(F.gelu, approximate="tanh")), ("silu", F.silu)],
    ids=["gelu", "gelu-tanh", "silu"],
)
def test_an_activation_after_it(
    precision: Precision, rows: int, outputs: int, activation: str, function: Callable[[Tensor], Tensor]
) -> None:
    weight, shift, states = torch.randn(outputs, 64), torch.randn(outputs), torch.randn(rows, 64)
    plain, activated = LAYERS[precision](weight, shift), LAYERS[precision](weight, shift, activation)
    assert torch.allclose(activated(states), function(plain(states)), atol=3e-6)
