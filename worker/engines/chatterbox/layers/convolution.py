"""Convolutions over time in float32, bfloat16 and int8.

In int8, activations have a scale for each window of rows: see `linear`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import TILES, ByteStrips
from worker.engines.chatterbox.kernels.quantize import quantized_windows, sizes
from worker.engines.chatterbox.layers.onednn import Layer, float_dtype, mkldnn
from worker.precision import Precision

_BLOCK_NUMBERS = 2**16
"""Numbers that a convolution makes at a time: little is made past the end, and calls are few."""


class FloatConvolution:
    """See `kernels.convolution`; of a stride of 1, in the precision of its weight.

    Time is gone through in blocks of one length, for which oneDNN compiles once: a length of its own would cost every
    utterance as much as the work itself.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, dilation: int) -> None:
        self._outputs, inputs, taps = weight.shape
        self._around = before, after
        self._reach = (taps - 1) * dilation
        self._block = max(1, _BLOCK_NUMBERS // self._outputs)
        self._dilation = [1, dilation]
        # Without the size oneDNN would lay the weight out anew with every call.
        size = [1, inputs, 1, self._block + self._reach]
        self._weight = mkldnn._reorder_convolution_weight(
            weight[:, :, None].contiguous(), [0, 0], [1, 1], self._dilation, 1, size
        )
        self._bias = None if bias is None else bias.to(weight.dtype)

    def __call__(self, states: Tensor) -> Tensor:
        """The convolution of `states`, in the precision of the weight."""
        before, after = self._around
        count = states.shape[1] + before + after - self._reach
        past = -count % self._block
        states = F.pad(states.to(self._weight.dtype), (0, 0, before, after + past))
        out = torch.empty(len(states), count, self._outputs, dtype=states.dtype)
        for one, its in zip(states, out, strict=True):
            for first in range(0, count, self._block):
                # Not a slice of the batch, whose stride oneDNN would take for another shape.
                part = its[first : first + self._block]
                part[:] = self._convolved(one[None, first : first + self._block + self._reach])[0, : len(part)]
        return out

    def _convolved(self, states: Tensor) -> Tensor:
        image = mkldnn._convolution_pointwise(
            _as_image(states), self._weight, self._bias, [0, 0], [1, 1], self._dilation, 1, "none", [], ""
        )
        return _as_time(image)


def _as_image(states: Tensor) -> Tensor:
    """(batch, time, channels) as oneDNN's convolutions know it: one line of (batch, channels, 1, time)."""
    return states.unsqueeze(1).permute(0, 3, 1, 2)


def _as_time(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).squeeze(1)


def convolution(
    weight: Tensor,
    bias: Tensor | None,
    precision: Precision,
    *,
    before: int = 0,
    after: int = 0,
    stride: int = 1,
    dilation: int = 1,
) -> Layer:
    """A convolution over time with the channels last: (batch, time, inputs) to (batch, time, outputs).

    `weight` is float32 (outputs, inputs, taps); `before` and `after` are the zeros that time is lengthened by. In int8
    it is computed in float32 where it has a stride, or a number of inputs that is no multiple of 16.

    Raises ValueError for a stride and a dilation together.
    """
    if stride > 1:
        if dilation > 1:
            raise ValueError(f"a convolution may have a stride ({stride}) or a dilation ({dilation}), not both")
        return _strided(weight, bias, precision, before=before, after=after, stride=stride)
    if precision is Precision.INT8 and weight.shape[1] % 16 == 0:
        return Int8Convolution(weight, bias, before=before, after=after, dilation=dilation)
    weight = weight.to(float_dtype(precision))
    return FloatConvolution(weight, bias, before=before, after=after, dilation=dilation)


def transposed_convolution(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, stride: int, padding: int
) -> Layer:
    """A convolution that lengthens time by `stride`, channels last as above, in floating numbers in every precision.

    `weight` is float32 (inputs, outputs, taps). Each step in makes `stride` steps out, so this is a convolution whose
    outputs are those of `stride` steps side by side, each with every stride-th tap: the polyphase form, for which
    oneDNN has nothing to work out anew for every length.
    """
    inputs, outputs, taps = weight.shape
    steps = -(-taps // stride)
    phases = F.pad(weight, (0, steps * stride - taps)).view(inputs, outputs, steps, stride).flip(2)
    layer = FloatConvolution(
        phases.permute(3, 1, 0, 2).reshape(stride * outputs, inputs, steps).to(float_dtype(precision)),
        None if bias is None else bias.repeat(stride),
        before=steps - 1,
        after=steps - 1,
        dilation=1,
    )

    def lengthened(states: Tensor) -> Tensor:
        count = (states.shape[1] - 1) * stride - 2 * padding + taps
        return layer(states).view(len(states), -1, outputs)[:, padding : padding + count]

    return lengthened


def _strided(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, before: int, after: int, stride: int
) -> Layer:
    """A convolution over `stride` steps side by side, which take as many channels."""
    outputs, inputs, taps = weight.shape
    steps = -(-taps // stride)
    folded = F.pad(weight, (0, steps * stride - taps)).view(outputs, inputs, steps, stride)
    layer = FloatConvolution(
        folded.permute(0, 3, 1, 2).reshape(outputs, stride * inputs, steps).to(float_dtype(precision)),
        bias,
        before=0,
        after=0,
        dilation=1,
    )

    def shortened(states: Tensor) -> Tensor:
        count = (states.shape[1] + before + after - taps) // stride + 1
        whole = (count + steps - 1) * stride
        states = F.pad(states, (0, 0, before, whole - before - states.shape[1]))
        return layer(states.view(len(states), -1, stride * inputs))

    return shortened


_WINDOW_BYTES = 2**18
"""Windows are multiplied so many bytes at a time, which a core's second cache holds beside the weight."""


_ROWS = TILES[1]
"""Windows at a time are a multiple of these."""


class Int8Convolution:
    """See `kernels.convolution`; of a stride of 1. What is multiplied are windows of rows side by side."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, dilation: int) -> None:
        self._outputs, inputs, taps = weight.shape
        self._strips = ByteStrips(weight.transpose(1, 2).reshape(self._outputs, -1), bias)
        self._width, self._dilation = taps * inputs, dilation
        self._before, self._lost = before, (taps - 1) * dilation - before - after
        self._windows = max(1, min(512, _WINDOW_BYTES // self._width) // _ROWS) * _ROWS

    def __call__(self, states: Tensor) -> Tensor:
        """The convolution of `states`, in float32."""
        out = torch.empty(len(states), states.shape[1] - self._lost, self._outputs)
        for one, its in zip(states.contiguous(), out, strict=True):
            self._convolve(one, its)
        return out

    def _convolve(self, states: Tensor, out: Tensor) -> None:
        of_rows = sizes(states)
        windows = torch.empty(min(self._windows, len(out)), self._width, dtype=torch.uint8)
        scales = torch.empty(len(windows))
        for first in range(0, len(out), len(windows)):
            its = out[first : first + len(windows)]
            part, its_scales = windows[: len(its)], scales[: len(its)]
            quantized_windows(states, of_rows, first - self._before, self._dilation, part, its_scales)
            self._strips.multiply(part, its_scales, its)
