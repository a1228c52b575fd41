"""The flow's encoder: a conformer without convolutions that makes two mel frames' worth of each speech token."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor, nn

from worker.engines.chatterbox.cooperative import Pieces
from worker.engines.chatterbox.layers.attention import relative_attention
from worker.engines.chatterbox.layers.convolution import convolution
from worker.engines.chatterbox.layers.linear import linear
from worker.precision import Precision


class Encoder:
    """Upstream's `UpsampleConformerEncoder` for one utterance, all of whose positions hear each other."""

    def __init__(self, encoder: Any, precision: Precision) -> None:
        ahead, up = encoder.pre_lookahead_layer, encoder.up_layer
        self._embed, self._embed_up = _Embedding(encoder.embed, precision), _Embedding(encoder.up_embed, precision)
        self._ahead = convolution(ahead.conv1.weight, ahead.conv1.bias, precision, after=ahead.pre_lookahead_len)
        self._behind = convolution(ahead.conv2.weight, ahead.conv2.bias, precision, before=2)
        self._layers = [_Layer(layer, precision) for layer in encoder.encoders]
        self._stride: int = up.stride
        self._up = convolution(up.conv.weight, up.conv.bias, precision, before=2 * up.stride)
        self._layers_up = [_Layer(layer, precision) for layer in encoder.up_encoders]
        self._norm = encoder.after_norm

    def pieces(self, states: Tensor) -> Pieces:
        """Embedded tokens, float32 (tokens, width), to (2 * tokens, width), layer by layer."""
        states, positions = self._embed(states)
        ahead = self._behind(F.leaky_relu(self._ahead(states[None])))[0]
        states = states + ahead
        for layer in self._layers:
            yield
            states = layer(states, positions)
        states = self._up(states.repeat_interleave(self._stride, 0)[None])[0]
        states, positions = self._embed_up(states)
        for layer in self._layers_up:
            yield
            states = layer(states, positions)
        return normal(states, self._norm)


class _Embedding:
    """A linear layer, scaled, with the table of relative positions."""

    def __init__(self, embedding: Any, precision: Precision) -> None:
        layer, self._norm, *_ = embedding.out
        self._linear = linear(layer.weight, layer.bias, precision)
        self._positions = embedding.pos_enc
        self._scale = math.sqrt(layer.out_features)

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        states = normal(self._linear(states), self._norm) * self._scale
        # Upstream's table grows by what it is shown.
        self._positions.extend_pe(states[None])
        return states, self._positions.position_encoding(0, len(states))[0]


class _Layer:
    """Attention with relative positions (Transformer-XL's, section 3.3 of arXiv 1901.02860), then two products."""

    def __init__(self, layer: Any, precision: Precision) -> None:
        attended, forward = layer.self_attn, layer.feed_forward
        self._norm_attention, self._norm_forward = layer.norm_mha, layer.norm_ff
        self._query, self._key, self._value, self._out, self._position = (
            linear(one.weight, one.bias, precision)
            for one in (
                attended.linear_q, attended.linear_k, attended.linear_v, attended.linear_out, attended.linear_pos,
            )
        )  # fmt: skip
        self._content_bias, self._position_bias = attended.pos_bias_u.flatten(), attended.pos_bias_v.flatten()
        self._attend = relative_attention(attended.h, attended.d_k, precision)
        self._widen = linear(forward.w_1.weight, forward.w_1.bias, precision)
        self._narrow = linear(forward.w_2.weight, forward.w_2.bias, precision)

    def __call__(self, states: Tensor, positions: Tensor) -> Tensor:
        seen = normal(states, self._norm_attention)
        query, key, value = self._query(seen), self._key(seen), self._value(seen)
        heard = self._attend(
            query + self._content_bias, key, value, query + self._position_bias, self._position(positions)
        )
        states = states + self._out(heard)
        return states + self._narrow(F.silu(self._widen(normal(states, self._norm_forward))))


def normal(states: Tensor, norm: nn.LayerNorm | Any) -> Tensor:
    """A layer's norm of the last dimension, in float32."""
    return torch.layer_norm(states.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
