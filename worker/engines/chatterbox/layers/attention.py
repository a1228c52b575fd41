"""Attention layers in float32, bfloat16 and int8."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor, nn

from worker.engines.chatterbox.kernels.attention_fp32 import attention_fp32
from worker.engines.chatterbox.kernels.attention_int8 import SelfAttentionInt8
from worker.engines.chatterbox.kernels.attention_tiles import HEAD_DIM
from worker.engines.chatterbox.kernels.layer_norm import norm_arrays, quantize_normed
from worker.engines.chatterbox.layers.layer_norm import layer_norm
from worker.engines.chatterbox.layers.linear import linear
from worker.engines.chatterbox.layers.onednn import Layer
from worker.engines.chatterbox.layers.selection import tiles_attention
from worker.precision import Precision

RelativeAttention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(queries, keys, values, distance_queries, distance_keys): attention whose scores depend on the distance, too.

Takes and returns (time, heads * width), but for `distance_keys`, (2 * time - 1, heads * width), whose row n is for a
distance of time - 1 - n.
"""


def self_attention(
    norm: nn.LayerNorm, query: Tensor, key: Tensor, value: Tensor, heads: int, precision: Precision
) -> Layer:
    """Layer norm and multi-head self-attention: float32 (time, width) to (time, outputs).

    The weights are float32 (outputs, width), without bias.
    """
    if precision is Precision.INT8:
        attention_int8, arrays = SelfAttentionInt8(query, key, value, heads), norm_arrays(norm)
        return lambda states: attention_int8(*quantize_normed(states, arrays))
    projections = [linear(weight, None, precision) for weight in (query, key, value)]
    if precision is Precision.FP32 and len(query) == heads * HEAD_DIM and tiles_attention():
        kernel: Callable[..., Tensor] = attention_fp32
    else:
        kernel = lambda *parts: attention(*(_split_heads(part, heads) for part in parts))  # noqa: E731

    def layer(states: Tensor) -> Tensor:
        normed = layer_norm(states, norm)
        return kernel(*(projection(normed) for projection in projections))

    return layer


def relative_attention(heads: int, width: int, precision: Precision) -> RelativeAttention:
    """Multi-head attention with a score for the distance of two positions (Transformer-XL, arXiv 1901.02860).

    `width` is that of one head. Computes in bfloat16 in bf16, and in float32 in every other precision.
    """
    if precision is not Precision.BF16 and width == HEAD_DIM and tiles_attention():
        return lambda queries, keys, values, *relative: attention_fp32(queries, keys, values, relative)

    def layer(queries: Tensor, keys: Tensor, values: Tensor, distance_queries: Tensor, distance_keys: Tensor) -> Tensor:
        biases = _distance_scores(
            _split_heads(distance_queries.to(distance_keys.dtype), heads), _split_heads(distance_keys, heads)
        )
        queries, keys, values = (_split_heads(part.to(keys.dtype), heads) for part in (queries, keys, values))
        return attention(queries, keys, values, biases)

    return layer


def _distance_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """The scaled scores of the distances from each position to each other: (heads, time, time)."""
    heads, time, width = queries.shape
    scores = torch.bmm(queries * width**-0.5, keys.transpose(1, 2))
    # Each row of the result starts one column before that of the row above.
    stride = scores.shape[2]
    return scores.as_strided((heads, time, time), (time * stride, stride - 1, 1), time - 1)


def attention(queries: Tensor, keys: Tensor, values: Tensor, biases: Tensor | None = None) -> Tensor:
    """Attention of each position to all, by PyTorch: (heads, time, width) to (time, heads * width).

    `biases`, (heads, time, time), are added to the scaled scores.
    """
    out = F.scaled_dot_product_attention(
        queries[None], keys[None], values[None], attn_mask=None if biases is None else biases[None]
    )
    return out[0].transpose(0, 1).flatten(1)


def _split_heads(states: Tensor, heads: int) -> Tensor:
    """(time, heads * width) to (heads, time, width)."""
    return states.view(len(states), heads, -1).transpose(0, 1)
