"""Convolutions over time in float32, bfloat16 and int8; states have their channels last: (batch, time, channels).

In int8, weights have a scale for each output and activations one for each window of rows, as each row has in `linear`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.packed_gemm import PackedLinearInt8
from worker.engines.chatterbox.kernels.quantize import (
    ACTIVATION_BYTES,
    ACTIVATION_TENSOR_DTYPE,
    quantize_windows,
    row_abs_max,
)
from worker.engines.chatterbox.kernels.simd.targets import TARGET
from worker.engines.chatterbox.layers.onednn import Layer, float_dtype, mkldnn
from worker.precision import Precision

_BLOCK_NUMBERS = 2**16
"""Numbers computed per call of oneDNN: so few that little is computed past the end, so many that calls are few."""


class FloatConvolution:
    """A convolution of stride 1, in the precision of its weight, float32 or bfloat16 (outputs, inputs, taps).

    Computes blocks of a fixed number of frames, for which oneDNN generates code once: it would generate code for each
    utterance's own length, which costs as much as the convolution itself.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, dilation: int) -> None:
        self._outputs, inputs, taps = weight.shape
        self._padding = before, after
        self._reach = (taps - 1) * dilation
        self._block = max(1, _BLOCK_NUMBERS // self._outputs)
        self._dilation = [1, dilation]
        # Without the size of its input, oneDNN would reorder the weight in each call.
        size = [1, inputs, 1, self._block + self._reach]
        self._weight = mkldnn._reorder_convolution_weight(
            weight[:, :, None].contiguous(), [0, 0], [1, 1], self._dilation, 1, size
        )
        self._bias = None if bias is None else bias.to(weight.dtype)

    def __call__(self, states: Tensor) -> Tensor:
        """(batch, time, inputs) to (batch, time + before + after - (taps - 1) * dilation, outputs)."""
        before, after = self._padding
        count = states.shape[1] + before + after - self._reach
        filling = -count % self._block
        states = F.pad(states.to(self._weight.dtype), (0, 0, before, after + filling))
        out = torch.empty(len(states), count, self._outputs, dtype=states.dtype)
        for one, one_out in zip(states, out, strict=True):
            for first in range(0, count, self._block):
                # Not a slice of the batch: its stride would be another shape to oneDNN.
                part = one_out[first : first + self._block]
                part[:] = self._convolve(one[None, first : first + self._block + self._reach])[0, : len(part)]
        return out

    def _convolve(self, states: Tensor) -> Tensor:
        image = mkldnn._convolution_pointwise(
            _as_image(states), self._weight, self._bias, [0, 0], [1, 1], self._dilation, 1, "none", [], ""
        )
        return _as_time(image)


def _as_image(states: Tensor) -> Tensor:
    """(batch, time, channels) as an image of one line, (batch, channels, 1, time), which oneDNN takes."""
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
    """A convolution over time: (batch, time, inputs) to (batch, time, outputs).

    `weight` is float32 (outputs, inputs, taps); `before` and `after` are the frames of zeros that pad the time. Int8 is
    computed in float32 with a stride, or with a number of inputs that is no multiple of 16.

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
    """A transposed convolution over time, which makes it `stride` times as long; computed in float32 or bfloat16.

    `weight` is float32 (inputs, outputs, taps). Each frame in makes `stride` frames out, so this is a convolution whose
    outputs are those `stride` frames side by side, each with every stride-th tap: the polyphase form, for which oneDNN
    has no code to generate for each length.
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

    def transposed(states: Tensor) -> Tensor:
        count = (states.shape[1] - 1) * stride - 2 * padding + taps
        return layer(states).view(len(states), -1, outputs)[:, padding : padding + count]

    return transposed


def _strided(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, before: int, after: int, stride: int
) -> Layer:
    """A convolution with a stride: one of stride 1 over groups of `stride` frames, taken as channels."""
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

    def strided(states: Tensor) -> Tensor:
        count = (states.shape[1] + before + after - taps) // stride + 1
        padded = (count + steps - 1) * stride
        states = F.pad(states, (0, 0, before, padded - before - states.shape[1]))
        return layer(states.view(len(states), -1, stride * inputs))

    return strided


_WINDOW_BYTES = 2**18
"""Bytes of windows that are multiplied at a time: the core's second-level cache holds them and the weight."""


class Int8Convolution:
    """A convolution of stride 1 in int8: a product of windows, each the rows under the taps, side by side."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, before: int, after: int, dilation: int) -> None:
        self._outputs, inputs, taps = weight.shape
        self._product = PackedLinearInt8(weight.transpose(1, 2).reshape(self._outputs, -1), bias)
        self._width, self._dilation = taps * inputs, dilation
        self._before, self._shortening = before, (taps - 1) * dilation - before - after
        # A multiple of the rows of a block.
        windows = min(512, _WINDOW_BYTES // (self._width * ACTIVATION_BYTES))
        self._windows = max(1, windows // TARGET.many_rows) * TARGET.many_rows

    def __call__(self, states: Tensor) -> Tensor:
        """float32 (batch, time, inputs) to (batch, time + before + after - (taps - 1) * dilation, outputs)."""
        out = torch.empty(len(states), states.shape[1] - self._shortening, self._outputs)
        for one, one_out in zip(states.contiguous(), out, strict=True):
            self._convolve(one, one_out)
        return out

    def _convolve(self, states: Tensor, out: Tensor) -> None:
        row_maxima = row_abs_max(states)
        windows = torch.empty(min(self._windows, len(out)), self._width, dtype=ACTIVATION_TENSOR_DTYPE)
        scales = torch.empty(len(windows))
        for first in range(0, len(out), len(windows)):
            part = out[first : first + len(windows)]
            part_windows, part_scales = windows[: len(part)], scales[: len(part)]
            quantize_windows(states, row_maxima, first - self._before, self._dilation, part_windows, part_scales)
            self._product.multiply_quantized(part_windows, part_scales, part)
