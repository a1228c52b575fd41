"""T3 of the Original and of Multilingual, a Llama, for several utterances per step.

Classifier-free guidance takes two rows per utterance: one with voice and text, the other with the voice only. The
arithmetic is that of the `transformers` module which upstream runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.layers.decode_linear import decode_linear, fused_decode_linear
from worker.engines.chatterbox.t3.alignment_guard import HEADS, AlignmentGuard
from worker.engines.chatterbox.t3.kv_cache import KVCache, QuerySpan
from worker.engines.chatterbox.upstream import patches
from worker.precision import Precision


class Llama:
    """The `decoder.Backbone` of the Original and Multilingual: two rows per utterance.

    The second row, for guidance, has the position embeddings of the text without the text.
    """

    rows_per_utterance = 2

    def __init__(self, t3: Any, precision: Precision, *, rows: int, length: int) -> None:
        self._t3 = t3
        backbone = t3.tfmr
        self._layers = [_Layer(layer, precision, rows) for layer in backbone.layers]
        self._rotary, self._final_norm = backbone.rotary_emb, backbone.norm
        self._head = decode_linear(t3.speech_head.weight, t3.speech_head.bias, Precision.FP32, rows=rows)
        first = self._layers[0]
        self.cache = KVCache(
            layers=len(self._layers),
            rows=rows,
            heads=first.heads,
            length=length,
            width=first.width,
            precision=precision,
        )

    def embed_voice(self, conditionals: Any) -> Tensor:
        """Embeddings of a voice and its exaggeration: (1, positions, width)."""
        with patches.muted():
            embedded: Tensor = self._t3.prepare_conditioning(conditionals)
        return embedded

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Embeddings of a text's tokens and of the start token, which upstream feeds twice: (2, tokens + 2, width)."""
        t3 = self._t3
        positions = t3.text_pos_emb(tokens[None])
        start = t3.speech_emb(torch.tensor([t3.hp.start_speech_token])) + t3.speech_pos_emb.get_fixed_embedding(0)[0]
        text = torch.stack([t3.text_emb(tokens) + positions, positions])
        return torch.cat([text, start.expand(2, 2, -1)], 1)

    def embed_token(self, token: int, number: int) -> Tensor:
        """Embedding of an utterance's `number`-th speech token, the same for both rows: (2, 1, width)."""
        t3 = self._t3
        embedded: Tensor = t3.speech_emb(torch.tensor([[token]])) + t3.speech_pos_emb.get_fixed_embedding(number)
        return embedded.expand(2, -1, -1)

    def forward(self, new: Tensor, spans: Sequence[QuerySpan], guards: Mapping[int, AlignmentGuard]) -> Tensor:
        """The new positions through all layers: (positions, width) → (positions, width)."""
        positions = [position for span in spans for position in range(span.start, span.start + span.count)]
        cosines, sines = (part[0][:, None] for part in self._rotary(new, torch.tensor([positions])))
        plan = self.cache.plan_step(spans)
        states = new
        for number, layer in enumerate(self._layers):
            queries, keys, values = layer.qkv(states, cosines, sines)
            states = states + layer.output_projection(self.cache.attention(number, queries, keys, values, plan))
            states = states + layer.feed_forward(states)
            if guards:
                self._show_guards(number, queries, spans, guards)
        return _rms_norm(states, self._final_norm)

    def logits(self, states: Tensor) -> Tensor:
        """Logits of the speech tokens: (…, width) → (…, vocabulary)."""
        return self._head(states)

    def _show_guards(
        self, layer: int, queries: Tensor, spans: Sequence[QuerySpan], guards: Mapping[int, AlignmentGuard]
    ) -> None:
        """Pass the attention weights of this layer's aligned heads, if it has any, to the guards."""
        aligned = [(number, head) for number, (head_layer, head) in enumerate(HEADS) if head_layer == layer]
        index = 0
        for span in spans if aligned else ():
            index += span.count
            guard = guards.get(span.row)
            end = span.start + span.count
            if guard is None or end <= guard.text.stop:
                continue
            start = max(span.start, guard.text.stop)
            behind_text = QuerySpan(span.row, start, end - start)
            for number, head in aligned:
                head_queries = queries[index - behind_text.count : index, head]
                weights = self.cache.attention_weights(layer, span.row, head, head_queries, behind_text)
                guard.observe(number, behind_text.start, weights)


class _Layer:
    """The linear layers and norms of one Llama block."""

    def __init__(self, layer: Any, precision: Precision, rows: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._attention_norm, self._feed_forward_norm = layer.input_layernorm, layer.post_attention_layernorm
        self.width: int = attention.head_dim
        self.heads: int = attention.config.num_attention_heads
        self._groups: int = attention.num_key_value_groups
        self._qkv = fused_decode_linear((attention.q_proj, attention.k_proj, attention.v_proj), precision, rows=rows)
        self._gate_up_projection = fused_decode_linear((mlp.gate_proj, mlp.up_proj), precision, rows=rows)
        self.output_projection, self._down_projection = (
            decode_linear(projection.weight, projection.bias, precision, rows=rows)
            for projection in (attention.o_proj, mlp.down_proj)
        )

    def qkv(self, states: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (positions, width) → (positions, heads, head width) each.

        Queries and keys are rotated to their positions (RoPE). Grouped keys and values are repeated for every head.
        """
        projected = self._qkv(_rms_norm(states, self._attention_norm)).float().unflatten(-1, (-1, self.width))
        kv_heads = self.heads // self._groups
        rotated, values = projected.split([self.heads + kv_heads, kv_heads], 1)
        rotated = rotated * cosines + _rotate_half(rotated) * sines
        queries, keys = rotated.split([self.heads, kv_heads], 1)
        if self._groups > 1:
            keys, values = (part.repeat_interleave(self._groups, 1) for part in (keys, values))
        return queries, keys, values

    def feed_forward(self, states: Tensor) -> Tensor:
        """Feed-forward (SwiGLU): (positions, width) → (positions, width)."""
        gate, up = self._gate_up_projection(_rms_norm(states, self._feed_forward_norm)).float().chunk(2, -1)
        return self._down_projection(F.silu(gate).mul_(up))


def _rotate_half(states: Tensor) -> Tensor:
    first, second = states.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _rms_norm(states: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)
