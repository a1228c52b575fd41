"""Convolutions in each precision against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it

from tests.support.precisions import MAX_ERROR, precision_params, relative_error
from worker.engines.chatterbox.layers.convolution import convolution, transposed_convolution
from worker.precision import Precision

in_each = pytest.mark.parametrize("precision", precision_params())


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
def test_a_loud_passage_costs_a_quiet_one_no_precision(precision: Precision) -> None:
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
