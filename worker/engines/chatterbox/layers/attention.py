"""What the decoders of tokens and of sound are built from, in each precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_fp32 import attention_float
from worker.engines.chatterbox.kernels.attention_int8 import attention_int8
from worker.engines.chatterbox.kernels.attention_tiles import WIDTH
from worker.engines.chatterbox.layers.convolution import FloatConvolution, FloatLinear
from worker.engines.chatterbox.layers.int8 import Int8Convolution, Int8Linear
from worker.precision import Precision, processor

Layer = Callable[[Tensor], Tensor]
"""Takes float32 or bfloat16, gives what its precision computes in: float32, or bfloat16."""

RelativeAttention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Takes queries, keys and values, other queries, which meet distances, and those: all (time, heads * width), but the
last (2 * time - 1, heads * width), whose row n is for a distance of time - 1 - n."""


def linear(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int | None = None, activation: str = "none"
) -> Layer:
    """States times weights plus bias, (…, inputs) to (…, outputs), with an `activation` after it.

    `weight` is float32 (outputs, inputs), `bias` (outputs,). `rows` lays float32 weights out for so many rows, in a
    copy of this process's own: for a few rows of large weights that is worth a fifth of the time and more, for
    hundreds of rows nothing. The activation is none, relu, gelu, or gelu-tanh.
    """
    if precision is Precision.INT8:
        return Int8Linear(weight, bias, activation)
    return FloatLinear(weight.to(_floating(precision)), bias, activation, rows)


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
    weight = weight.to(_floating(precision))
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
        phases.permute(3, 1, 0, 2).reshape(stride * outputs, inputs, steps).to(_floating(precision)),
        None if bias is None else bias.repeat(stride),
        before=steps - 1,
        after=steps - 1,
        dilation=1,
    )

    def lengthened(states: Tensor) -> Tensor:
        count = (states.shape[1] - 1) * stride - 2 * padding + taps
        return layer(states).view(len(states), -1, outputs)[:, padding : padding + count]

    return lengthened


def self_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, precision: Precision) -> Layer:
    """What each position of float32 (time, width) hears of all, (time, outputs), by some heads.

    The weights are float32 (outputs, width), without bias.
    """
    if precision is Precision.INT8:
        mix = linear(torch.cat([query, key, value]), None, precision)
        return lambda states: attention_int8(mix(states), heads)
    layers = [linear(weight, None, precision) for weight in (query, key, value)]
    if precision is Precision.FP32 and len(query) == heads * WIDTH and "avx512f" in processor().has:
        return lambda states: attention_float(*(layer(states) for layer in layers))
    return lambda states: attention(*(by_head(layer(states), heads) for layer in layers))


def relative_attention(heads: int, width: int, precision: Precision) -> RelativeAttention:
    """What each position hears of all, with a score for their distance, by heads of `width`.

    In float32 in every precision but bf16.
    """
    if precision is not Precision.BF16 and width == WIDTH and "avx512f" in processor().has:
        return lambda queries, keys, values, further, apart: attention_float(queries, keys, values, (further, apart))

    def attend(queries: Tensor, keys: Tensor, values: Tensor, further: Tensor, apart: Tensor) -> Tensor:
        biases = _by_distance(by_head(further.to(apart.dtype), heads), by_head(apart, heads))
        queries, keys, values = (by_head(part.to(keys.dtype), heads) for part in (queries, keys, values))
        return attention(queries, keys, values, biases)

    return attend


def _by_distance(queries: Tensor, apart: Tensor) -> Tensor:
    """What each position's score of each other owes to their distance: (heads, time, time), scaled."""
    heads, time, width = queries.shape
    scores = torch.bmm(queries * width**-0.5, apart.transpose(1, 2))
    # Each row of the answer begins one column before the last one's.
    across = scores.shape[2]
    return scores.as_strided((heads, time, time), (time * across, across - 1, 1), time - 1)


def attention(queries: Tensor, keys: Tensor, values: Tensor, biases: Tensor | None = None) -> Tensor:
    """What each position hears of all: (heads, time, width), to (time, heads * width).

    `biases`, (heads, time, time), are added to the scaled scores.
    """
    heard = F.scaled_dot_product_attention(
        queries[None], keys[None], values[None], attn_mask=None if biases is None else biases[None]
    )
    return heard[0].transpose(0, 1).flatten(1)


def by_head(states: Tensor, heads: int) -> Tensor:
    """(time, heads * width) to (heads, time, width)."""
    return states.view(len(states), heads, -1).transpose(0, 1)


def _strided(
    weight: Tensor, bias: Tensor | None, precision: Precision, *, before: int, after: int, stride: int
) -> Layer:
    """A convolution over `stride` steps side by side, which take as many channels."""
    outputs, inputs, taps = weight.shape
    steps = -(-taps // stride)
    folded = F.pad(weight, (0, steps * stride - taps)).view(outputs, inputs, steps, stride)
    layer = FloatConvolution(
        folded.permute(0, 3, 1, 2).reshape(outputs, stride * inputs, steps).to(_floating(precision)),
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


def _floating(precision: Precision) -> torch.dtype:
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32
