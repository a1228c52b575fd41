"""Products, convolutions and attention in each precision against PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from tests.support.precisions import MAX_ERROR, precision_params, relative_error
from worker.engines.chatterbox.layers.attention import relative_attention, self_attention
from worker.engines.chatterbox.layers.convolution import convolution, transposed_convolution
from worker.engines.chatterbox.layers.linear import linear
from worker.precision import Precision

in_each = pytest.mark.parametrize("precision", precision_params())
exactly_by_row = pytest.mark.parametrize("precision", precision_params([Precision.BF16, Precision.INT8]))


@pytest.fixture(autouse=True)
def drawn() -> Iterator[None]:
    torch.manual_seed(1)
    with torch.inference_mode():
        yield


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


@exactly_by_row
def test_a_row_comes_out_the_same_whatever_stands_beside_it(precision: Precision) -> None:
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


@in_each
@pytest.mark.parametrize(("taps", "dilation", "before", "after", "stride"), [
    (3, 1, 2, 0, 1), (3, 1, 1, 1, 1), (11, 5, 25, 25, 1), (7, 3, 9, 9, 1), (1, 1, 0, 0, 1), (4, 1, 0, 3, 1),
    (6, 1, 1, 1, 3), (5, 1, 8, 0, 1), (30, 1, 7, 7, 15), (3, 1, 0, 0, 4),
])  # fmt: skip
@pytest.mark.parametrize("inputs", [18, 64])
@pytest.mark.parametrize("time", [60, 1300])
def test_a_convolution(
    precision: Precision, taps: int, dilation: int, before: int, after: int, stride: int, inputs: int, time: int
) -> None:
    weight, bias = torch.randn(32, inputs, taps), torch.randn(32)
    states = torch.randn(2, time, inputs)
    layer = convolution(weight, bias, precision, before=before, after=after, stride=stride, dilation=dilation)
    padded = F.pad(states.transpose(1, 2), (before, after))
    expected = F.conv1d(padded, weight, bias, stride=stride, dilation=dilation).transpose(1, 2)
    assert relative_error(layer(states).float(), expected) < MAX_ERROR[precision]


@in_each
def test_a_loud_moment_costs_a_quiet_one_no_precision(precision: Precision) -> None:
    """Each window of a convolution has its own scale."""
    weight = torch.randn(16, 16, 3)
    states = torch.randn(1, 200, 16)
    states[:, 100:] *= 1e5
    found = convolution(weight, None, precision, before=1, after=1)(states).float()
    expected = F.conv1d(states.transpose(1, 2), weight, padding=1).transpose(1, 2)
    assert relative_error(found[:, :99], expected[:, :99]) < MAX_ERROR[precision]


@in_each
@pytest.mark.parametrize(("taps", "stride", "padding"), [(16, 8, 4), (11, 5, 3), (7, 3, 2), (3, 3, 0), (2, 5, 0)])
@pytest.mark.parametrize("time", [1, 50, 700])
def test_a_transposed_convolution(precision: Precision, taps: int, stride: int, padding: int, time: int) -> None:
    weight, bias = torch.randn(32, 16, taps), torch.randn(16)
    states = torch.randn(2, time, 32)
    found = transposed_convolution(weight, bias, precision, stride=stride, padding=padding)(states).float()
    expected = F.conv_transpose1d(states.transpose(1, 2), weight, bias, stride=stride, padding=padding)
    assert relative_error(found, expected.transpose(1, 2)) < MAX_ERROR[precision]


def test_a_stride_and_a_dilation_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a stride \(2\) or a dilation \(3\), not both"):
        convolution(torch.randn(16, 16, 3), None, Precision.FP32, stride=2, dilation=3)


def heard(states: Tensor, weights: Tensor, heads: int) -> Tensor:
    """By the book, in float64."""
    queries, keys, values = (
        (states.double() @ weight.double().t()).view(len(states), heads, -1).transpose(0, 1) for weight in weights
    )
    scores = queries @ keys.transpose(1, 2) * queries.shape[-1] ** -0.5
    return (torch.softmax(scores, -1) @ values).transpose(0, 1).flatten(1).float()


@in_each
@pytest.mark.parametrize("time", [1, 2, 5, 63, 64, 65, 700, 1111])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0], ids="spread {}".format)
def test_attention_of_all_to_all(precision: Precision, time: int, spread: float) -> None:
    weights = torch.randn(3, 128, 48) / 48**0.5
    weights[0] *= spread
    states = torch.randn(time, 48)
    found = self_attention(weights[0], weights[1], weights[2], 2, precision)(states).float()
    expected = heard(states, weights, 2)
    # What is heard of many cancels out, and scores of a wide spread come from large products.
    assert float((found - expected).abs().max()) < MAX_ERROR[precision] * (1 + 2 * spread) * float(states.abs().max())


@pytest.mark.parametrize("precision", precision_params([Precision.INT8]))
def test_what_all_keys_have_in_common_costs_attention_no_precision(precision: Precision) -> None:
    from worker.engines.chatterbox.kernels.attention_int8 import attention_int8

    mixed = torch.randn(300, 3, 2, 64)
    expected = attention_int8(mixed.flatten(1).clone(), 2)
    mixed[:, 1] += 20 * torch.randn(64)
    assert relative_error(attention_int8(mixed.flatten(1), 2), expected) < MAX_ERROR[precision] / 10


@in_each
@pytest.mark.parametrize("time", [1, 2, 5, 6, 7, 63, 64, 65, 130, 345])
@pytest.mark.parametrize("width", [32, 64])
def test_attention_with_a_score_for_distance(precision: Precision, time: int, width: int) -> None:
    queries, keys, values, further = torch.randn(4, time, 2 * width)
    apart = torch.randn(2 * time - 1, 2 * width)
    dtype = torch.bfloat16 if precision is Precision.BF16 else torch.float32
    found = relative_attention(2, width, precision)(queries, keys.to(dtype), values.to(dtype), further, apart.to(dtype))
    for head in range(2):
        its = slice(head * width, (head + 1) * width)
        scores = queries[:, its].double() @ keys[:, its].double().t()
        for one in range(time):
            for other in range(time):
                scores[one, other] += further[one, its].double() @ apart[time - 1 - (one - other), its].double()
        expected = torch.softmax(scores * width**-0.5, -1) @ values[:, its].double()
        differs = 0.05 if precision is Precision.BF16 else 1e-5
        assert (found[:, its].double() - expected).abs().max() < differs
