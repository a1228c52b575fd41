"""Few rows times large weights: the same numbers as PyTorch's, and the same for a row whoever stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it

from tests.support.precisions import MAX_ERROR, precision_params, relative_error
from worker.engines.chatterbox.kernels.packed_gemm import ByteStrips, FloatStrips
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision

KINDS: dict[Precision, Callable[..., Layer]] = {
    Precision.FP32: FloatStrips,
    Precision.INT8: ByteStrips,
}
in_each = pytest.mark.parametrize("precision", precision_params(KINDS))


@pytest.fixture(autouse=True)
def drawn() -> Iterator[None]:
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
    found = KINDS[precision](weight, shift)(states)
    for row, one in zip(found, states, strict=True):
        assert relative_error(row, F.linear(one, weight, shift)) < MAX_ERROR[precision]


@in_each
def test_a_row_comes_out_the_same_whoever_stands_beside_it(precision: Precision) -> None:
    layer = KINDS[precision](torch.randn(200, 512), torch.randn(200))
    states = torch.randn(40, 512)
    together = layer(states)
    for count in (1, 5, 9, 20, 40):
        assert torch.equal(layer(states[40 - count :]), together[40 - count :])


@in_each
def test_weights_may_lie_the_other_way_round(precision: Precision) -> None:
    weight, states = torch.randn(128, 192), torch.randn(9, 128)
    found = KINDS[precision](weight.t(), None)(states)
    assert relative_error(found, states @ weight) < MAX_ERROR[precision]


@in_each
def test_states_may_lie_apart(precision: Precision) -> None:
    weight, states = torch.randn(64, 32), torch.randn(9, 64)
    assert torch.equal(
        KINDS[precision](weight, None)(states[:, ::2]), KINDS[precision](weight, None)(states[:, ::2].contiguous())
    )


@in_each
@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("outputs", [64, 90])
@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu-tanh", "tanh")])
def test_an_activation_after_it(
    precision: Precision, rows: int, outputs: int, activation: str, approximate: str
) -> None:
    weight, shift, states = torch.randn(outputs, 64), torch.randn(outputs), torch.randn(rows, 64)
    plain, bent = KINDS[precision](weight, shift), KINDS[precision](weight, shift, activation)
    assert torch.allclose(bent(states), F.gelu(plain(states), approximate=approximate), atol=3e-6)
