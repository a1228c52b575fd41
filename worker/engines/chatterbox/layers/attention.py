"""Attention layers in float32, bfloat16 and int8."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_fp32 import attention_float
from worker.engines.chatterbox.kernels.attention_int8 import attention_int8
from worker.engines.chatterbox.kernels.attention_tiles import WIDTH
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.precision import Precision, detect_processor

RelativeAttention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Takes queries, keys and values, other queries, which meet distances, and those: all (time, heads * width), but the
last (2 * time - 1, heads * width), whose row n is for a distance of time - 1 - n."""


def self_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, precision: Precision) -> Layer:
    """What each position of float32 (time, width) hears of all, (time, outputs), by some heads.

    The weights are float32 (outputs, width), without bias.
    """
    if precision is Precision.INT8:
        mix = linear(torch.cat([query, key, value]), None, precision)
        return lambda states: attention_int8(mix(states), heads)
    layers = [linear(weight, None, precision) for weight in (query, key, value)]
    if precision is Precision.FP32 and len(query) == heads * WIDTH and "avx512f" in detect_processor().instruction_sets:
        return lambda states: attention_float(*(layer(states) for layer in layers))
    return lambda states: attention(*(by_head(layer(states), heads) for layer in layers))


def relative_attention(heads: int, width: int, precision: Precision) -> RelativeAttention:
    """What each position hears of all, with a score for their distance, by heads of `width`.

    In float32 in every precision but bf16.
    """
    if precision is not Precision.BF16 and width == WIDTH and "avx512f" in detect_processor().instruction_sets:
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
