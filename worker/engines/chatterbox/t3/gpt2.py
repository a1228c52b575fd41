"""T3 of Turbo and Nano, a GPT-2, for several utterances per step: each step reads the weights once.

The arithmetic is that of the `transformers` module which upstream runs. That module's own cache grows by copying, and
its rows must all begin and end together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.layers.decode_linear import decode_linear
from worker.engines.chatterbox.t3.alignment_guard import AlignmentGuard
from worker.engines.chatterbox.t3.kv_cache import KVCache, QuerySpan
from worker.precision import Precision


class Gpt2:
    """The `decoder.Backbone` of Turbo and Nano: one row per utterance, no guidance, no guard."""

    rows_per_utterance = 1

    def __init__(self, t3: Any, precision: Precision, *, rows: int, length: int) -> None:
        self._t3 = t3
        backbone = t3.tfmr
        heads = backbone.config.n_head
        self._layers = [_Layer(block, heads, precision, rows) for block in backbone.h]
        self._position_embeddings: Tensor = backbone.wpe.weight
        self._final_norm = backbone.ln_f
        self._head = decode_linear(t3.speech_head.weight, t3.speech_head.bias, Precision.FP32, rows=rows)
        width = backbone.config.n_embd // heads
        self.cache = KVCache(
            layers=len(self._layers), rows=rows, heads=heads, length=length, width=width, precision=precision
        )

    def embed_voice(self, conditionals: Any) -> Tensor:
        """Embeddings of a voice: (1, positions, width)."""
        embedded: Tensor = self._t3.prepare_conditioning(conditionals)
        return embedded

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Embeddings of a text's tokens and of the start token: (1, tokens + 1, width)."""
        start = torch.tensor([self._t3.hp.start_speech_token])
        return torch.cat([self._t3.text_emb(tokens), self._t3.speech_emb(start)])[None]

    def embed_token(self, token: int, number: int) -> Tensor:
        """Embedding of a speech token: (1, 1, width). `number` makes no difference."""
        embedded: Tensor = self._t3.speech_emb(torch.tensor([[token]]))
        return embedded

    def forward(self, new: Tensor, spans: Sequence[QuerySpan], guards: Mapping[int, AlignmentGuard]) -> Tensor:
        """The new positions through all layers: (positions, width) → (positions, width)."""
        positions = [position for span in spans for position in range(span.start, span.start + span.count)]
        states = new + self._position_embeddings[torch.tensor(positions)]
        plan = self.cache.plan_step(spans)
        for number, layer in enumerate(self._layers):
            states = states + layer.output_projection(self.cache.attention(number, *layer.qkv(states), plan))
            states = states + layer.feed_forward(states)
        return _layer_norm(states, self._final_norm)

    def logits(self, states: Tensor) -> Tensor:
        """Logits of the speech tokens: (…, width) → (…, vocabulary)."""
        return self._head(states)


class _Layer:
    """The linear layers and norms of one GPT-2 block."""

    def __init__(self, block: Any, heads: int, precision: Precision, rows: int) -> None:
        self._heads = heads
        self._attention_norm, self._feed_forward_norm = block.ln_1, block.ln_2
        # GPT-2's weights are (inputs, outputs), the transpose of `nn.Linear`'s.
        self._qkv, self.output_projection, self._down_projection = (
            decode_linear(layer.weight.t(), layer.bias, precision, rows=rows)
            for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_proj)
        )
        up = block.mlp.c_fc
        self._up_projection = decode_linear(up.weight.t(), up.bias, precision, rows=rows, activation="gelu-tanh")

    def qkv(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (positions, width) → (positions, heads, head width) each."""
        projected = self._qkv(_layer_norm(states, self._attention_norm)).float()
        queries, keys, values = projected.view(len(projected), 3, self._heads, -1).unbind(1)
        return queries, keys, values

    def feed_forward(self, states: Tensor) -> Tensor:
        """Feed-forward (GELU): (positions, width) → (positions, width)."""
        return self._down_projection(self._up_projection(_layer_norm(states, self._feed_forward_norm)))


def _layer_norm(states: Tensor, norm: Any) -> Tensor:
    return F.layer_norm(states, states.shape[-1:], norm.weight, norm.bias, norm.eps)
