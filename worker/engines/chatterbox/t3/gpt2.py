"""T3 of Turbo and Nano, a GPT-2, for several utterances at once: one reading of the weights serves all that is new.

The arithmetic is that of the `transformers` module which upstream runs, whose own cache grows by copying and whose rows
must all begin and end together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.layers.decode_linear import product
from worker.engines.chatterbox.t3.alignment_guard import Guard
from worker.engines.chatterbox.t3.kv_cache import KeysValues, Span
from worker.precision import Precision


class Gpt2:
    """See `decoder.Backbone`. No guidance, no guard: an utterance is one row."""

    rows_each = 1

    def __init__(self, t3: Any, precision: Precision, *, rows: int, length: int) -> None:
        self._t3 = t3
        backbone = t3.tfmr
        heads = backbone.config.n_head
        self._layers = [_Layer(block, heads, precision, rows) for block in backbone.h]
        self._positions: Tensor = backbone.wpe.weight
        self._final = backbone.ln_f
        self._head = product(t3.speech_head.weight, t3.speech_head.bias, Precision.FP32, rows=rows)
        width = backbone.config.n_embd // heads
        self.cache = KeysValues(layers=len(self._layers), rows=rows, heads=heads, length=length, width=width)

    def prompt(self, conditionals: Any) -> Tensor:
        """The embeddings of a voice."""
        embedded: Tensor = self._t3.prepare_conditioning(conditionals)
        return embedded

    def text(self, tokens: Tensor) -> Tensor:
        """The embeddings of a text and of the start of speech."""
        start = torch.tensor([self._t3.hp.start_speech_token])
        return torch.cat([self._t3.text_emb(tokens), self._t3.speech_emb(start)])[None]

    def token(self, token: int, number: int) -> Tensor:
        """The embedding of a token."""
        embedded: Tensor = self._t3.speech_emb(torch.tensor([[token]]))
        return embedded

    def forward(self, new: Tensor, spans: Sequence[Span], guards: Mapping[int, Guard]) -> Tensor:
        """New positions through all layers."""
        places = [place for span in spans for place in range(span.start, span.start + span.count)]
        states = new + self._positions[torch.tensor(places)]
        kept = self.cache.places(spans)
        for number, layer in enumerate(self._layers):
            states = states + layer.project(self.cache.attend(number, *layer.mix(states), kept))
            states = states + layer.think(states)
        return _normal(states, self._final)

    def logits(self, states: Tensor) -> Tensor:
        """Scores of all speech tokens."""
        return self._head(states)


class _Layer:
    """One block's products and norms."""

    def __init__(self, block: Any, heads: int, precision: Precision, rows: int) -> None:
        self._heads = heads
        self._before_mix, self._before_think = block.ln_1, block.ln_2
        # GPT-2 keeps its weights the other way round than `nn.Linear` does.
        self._mix, self.project, self._narrow = (
            product(layer.weight.t(), layer.bias, precision, rows=rows)
            for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_proj)
        )
        widen = block.mlp.c_fc
        self._widen = product(widen.weight.t(), widen.bias, precision, rows=rows, activation="gelu-tanh")

    def mix(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (positions, heads, width) each."""
        mixed = self._mix(_normal(states, self._before_mix)).float()
        queries, keys, values = mixed.view(len(mixed), 3, self._heads, -1).unbind(1)
        return queries, keys, values

    def think(self, states: Tensor) -> Tensor:
        """What each position makes of what it has heard."""
        return self._narrow(self._widen(_normal(states, self._before_think)))


def _normal(states: Tensor, norm: Any) -> Tensor:
    return F.layer_norm(states, states.shape[-1:], norm.weight, norm.bias, norm.eps)
