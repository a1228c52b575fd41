"""T3 of the Original and of Multilingual, a Llama, for several utterances at once.

Guidance takes two rows an utterance: one hears voice and text, the other the voice alone. The arithmetic is that of the
`transformers` module which upstream runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.layers.decode_linear import product, products
from worker.engines.chatterbox.t3.alignment_guard import HEADS, Guard
from worker.engines.chatterbox.t3.kv_cache import KeysValues, Span
from worker.engines.chatterbox.upstream import patches
from worker.precision import Precision


class Llama:
    """See `decoder.Backbone`. An utterance is two rows, the second of which has places of text without the text."""

    rows_each = 2

    def __init__(self, t3: Any, precision: Precision, *, rows: int, length: int) -> None:
        self._t3 = t3
        backbone = t3.tfmr
        self._layers = [_Layer(layer, precision, rows) for layer in backbone.layers]
        self._rotary, self._final = backbone.rotary_emb, backbone.norm
        self._head = product(t3.speech_head.weight, t3.speech_head.bias, Precision.FP32, rows=rows)
        first = self._layers[0]
        self.cache = KeysValues(
            layers=len(self._layers), rows=rows, heads=first.heads, length=length, width=first.width
        )

    def prompt(self, conditionals: Any) -> Tensor:
        """The embeddings of a voice and of how expressive it is to be."""
        with patches.muted():
            embedded: Tensor = self._t3.prepare_conditioning(conditionals)
        return embedded

    def text(self, tokens: Tensor) -> Tensor:
        """The embeddings of a text and of the start of speech, which upstream says twice."""
        t3 = self._t3
        places = t3.text_pos_emb(tokens[None])
        start = t3.speech_emb(torch.tensor([t3.hp.start_speech_token])) + t3.speech_pos_emb.get_fixed_embedding(0)[0]
        text = torch.stack([t3.text_emb(tokens) + places, places])
        return torch.cat([text, start.expand(2, 2, -1)], 1)

    def token(self, token: int, number: int) -> Tensor:
        """The embedding of a token, the same for both rows."""
        t3 = self._t3
        embedded: Tensor = t3.speech_emb(torch.tensor([[token]])) + t3.speech_pos_emb.get_fixed_embedding(number)
        return embedded.expand(2, -1, -1)

    def forward(self, new: Tensor, spans: Sequence[Span], guards: Mapping[int, Guard]) -> Tensor:
        """New positions through all layers."""
        places = [place for span in spans for place in range(span.start, span.start + span.count)]
        cosines, sines = (part[0][:, None] for part in self._rotary(new, torch.tensor([places])))
        kept = self.cache.places(spans)
        states = new
        for number, layer in enumerate(self._layers):
            queries, keys, values = layer.mix(states, cosines, sines)
            states = states + layer.project(self.cache.attend(number, queries, keys, values, kept))
            states = states + layer.think(states)
            if guards:
                self._show(number, queries, spans, guards)
        return _normal(states, self._final)

    def logits(self, states: Tensor) -> Tensor:
        """Scores of all speech tokens."""
        return self._head(states)

    def _show(self, layer: int, queries: Tensor, spans: Sequence[Span], guards: Mapping[int, Guard]) -> None:
        """Let the guards see what this layer's heads, if it has some that they look at, hear of the text."""
        watched = [(number, head) for number, (aligned, head) in enumerate(HEADS) if aligned == layer]
        at = 0
        for span in spans if watched else ():
            at += span.count
            guard = guards.get(span.row)
            end = span.start + span.count
            if guard is None or end <= guard.text.stop:
                continue
            behind = Span(span.row, max(span.start, guard.text.stop), end - max(span.start, guard.text.stop))
            for number, head in watched:
                asked = queries[at - behind.count : at, head]
                guard.see(number, behind.start, self.cache.weights(layer, span.row, head, asked, behind))


class _Layer:
    """One layer's products and norms."""

    def __init__(self, layer: Any, precision: Precision, rows: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before_mix, self._before_think = layer.input_layernorm, layer.post_attention_layernorm
        self.width: int = attention.head_dim
        self.heads: int = attention.config.num_attention_heads
        self._groups: int = attention.num_key_value_groups
        self._mix = products((attention.q_proj, attention.k_proj, attention.v_proj), precision, rows=rows)
        self._widen = products((mlp.gate_proj, mlp.up_proj), precision, rows=rows)
        self.project, self._narrow = (
            product(one.weight, one.bias, precision, rows=rows) for one in (attention.o_proj, mlp.down_proj)
        )

    def mix(self, states: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (positions, heads, width) each, the first two turned to their positions."""
        mixed = self._mix(_normal(states, self._before_mix)).float().unflatten(-1, (-1, self.width))
        kept = self.heads // self._groups
        turned, values = mixed.split([self.heads + kept, kept], 1)
        turned = turned * cosines + _half_turned(turned) * sines
        queries, keys = turned.split([self.heads, kept], 1)
        if self._groups > 1:
            keys, values = (part.repeat_interleave(self._groups, 1) for part in (keys, values))
        return queries, keys, values

    def think(self, states: Tensor) -> Tensor:
        """What each position makes of what it has heard."""
        gate, up = self._widen(_normal(states, self._before_think)).float().chunk(2, -1)
        return self._narrow(F.silu(gate).mul_(up))


def _half_turned(states: Tensor) -> Tensor:
    first, second = states.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _normal(states: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)
