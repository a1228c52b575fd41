"""The flow's encoder: a conformer without convolution modules, from one speech token to two mel frames."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.cooperative import CooperativeSteps
from worker.engines.chatterbox.layers.attention import relative_attention
from worker.engines.chatterbox.layers.convolution import convolution
from worker.engines.chatterbox.layers.feed_forward import feed_forward
from worker.engines.chatterbox.layers.layer_norm import layer_norm
from worker.engines.chatterbox.layers.linear import linear
from worker.precision import Precision


class Encoder:
    """Upstream's `UpsampleConformerEncoder` for one utterance, with full (not causal) attention."""

    def __init__(self, encoder: Any, precision: Precision) -> None:
        lookahead, upsample = encoder.pre_lookahead_layer, encoder.up_layer
        self._embedding = _Embedding(encoder.embed, precision)
        self._upsampled_embedding = _Embedding(encoder.up_embed, precision)
        self._lookahead_conv = convolution(
            lookahead.conv1.weight, lookahead.conv1.bias, precision, after=lookahead.pre_lookahead_len
        )
        self._causal_conv = convolution(lookahead.conv2.weight, lookahead.conv2.bias, precision, before=2)
        self._layers = [_Layer(layer, precision) for layer in encoder.encoders]
        self._stride: int = upsample.stride
        self._upsample_conv = convolution(
            upsample.conv.weight, upsample.conv.bias, precision, before=2 * upsample.stride
        )
        self._upsampled_layers = [_Layer(layer, precision) for layer in encoder.up_encoders]
        self._norm = encoder.after_norm

    def steps(self, states: Tensor) -> CooperativeSteps:
        """Embedded tokens, float32 (tokens, width) → (2 * tokens, width), one layer per step."""
        states, positions = self._embedding(states)
        lookahead = self._causal_conv(F.leaky_relu(self._lookahead_conv(states[None])))[0]
        states = states + lookahead
        for layer in self._layers:
            yield
            states = layer(states, positions)
        states = self._upsample_conv(states.repeat_interleave(self._stride, 0)[None])[0]
        states, positions = self._upsampled_embedding(states)
        for layer in self._upsampled_layers:
            yield
            states = layer(states, positions)
        return layer_norm(states, self._norm)


class _Embedding:
    """A linear layer, scaled, and the embeddings of relative positions for its output."""

    def __init__(self, embedding: Any, precision: Precision) -> None:
        layer, self._norm, *_ = embedding.out
        self._linear = linear(layer.weight, layer.bias, precision)
        self._positions = embedding.pos_enc
        self._scale = math.sqrt(layer.out_features)

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        states = layer_norm(self._linear(states), self._norm) * self._scale
        # Upstream's table grows to the longest length that it has been asked for.
        self._positions.extend_pe(states[None])
        return states, self._positions.position_encoding(0, len(states))[0]


class _Layer:
    """Attention with relative positions (Transformer-XL, section 3.3 of arXiv 1901.02860), then feed-forward (SiLU)."""

    def __init__(self, layer: Any, precision: Precision) -> None:
        attention, hidden = layer.self_attn, layer.feed_forward
        self._attention_norm = layer.norm_mha
        self._query, self._key, self._value, self._output_projection, self._position = (
            linear(projection.weight, projection.bias, precision)
            for projection in (
                attention.linear_q,
                attention.linear_k,
                attention.linear_v,
                attention.linear_out,
                attention.linear_pos,
            )
        )
        self._content_bias, self._position_bias = attention.pos_bias_u.flatten(), attention.pos_bias_v.flatten()
        self._attention = relative_attention(attention.h, attention.d_k, precision)
        self._feed_forward = feed_forward(layer.norm_ff, hidden.w_1, hidden.w_2, precision, activation="silu")

    def __call__(self, states: Tensor, positions: Tensor) -> Tensor:
        normed = layer_norm(states, self._attention_norm)
        query, key, value = self._query(normed), self._key(normed), self._value(normed)
        attention_output = self._attention(
            query + self._content_bias, key, value, query + self._position_bias, self._position(positions)
        )
        return self._feed_forward(states + self._output_projection(attention_output))
