"""T3 of Turbo and Nano, a GPT-2, for several utterances at once: one reading of the weights serves a token of each.

Each utterance has a row of a cache of keys and values that is allocated once. Whatever is new, a prompt's hundreds of
positions or one token of every row, goes through the layers in one piece; only attention is computed row by row, over
that row's own positions. The arithmetic is that of the `transformers` module which upstream runs, whose own cache grows
by copying and whose rows must all begin and end together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """New positions of one row: `count` of them from `start` on."""

    row: int
    start: int
    count: int


@dataclass(frozen=True)
class Positions:
    """What the layers know of positions 0 to n of an utterance: keys and values, float32 (layers, heads, n, width)."""

    keys: Tensor
    values: Tensor

    @property
    def count(self) -> int:
        """How many they are."""
        return int(self.keys.shape[2])


class Gpt2:
    """The layers of `t3`, whose weights stay where they are, with a cache of `rows` times `length` positions.

    A row that is full takes `bytes_a_row`, of which only what has been written is resident.
    """

    def __init__(self, t3: Any, *, rows: int, length: int) -> None:
        backbone = t3.tfmr
        self._layers = [_Layer(block, rows) for block in backbone.h]
        self._positions: Tensor = backbone.wpe.weight
        self._final = backbone.ln_f
        self._heads: int = backbone.config.n_head
        width = backbone.config.n_embd // self._heads
        shape = (len(self._layers), rows, self._heads, min(length, len(self._positions)), width)
        self._keys, self._values = torch.empty(shape), torch.empty(shape)

    @property
    def length(self) -> int:
        """Most positions of a row."""
        return int(self._keys.shape[3])

    @property
    def bytes_a_row(self) -> int:
        """Memory of a row whose every position has been written."""
        return int(2 * self._keys[:, 0].numel() * self._keys.element_size())

    def forward(self, new: Tensor, spans: Sequence[Span]) -> Tensor:
        """The last layer's output for `new`, embeddings without positions, both float32 (positions, width).

        The spans, in the order of `new`, say where each belongs; the positions before them must be there already.
        """
        places = torch.cat([torch.arange(span.start, span.start + span.count) for span in spans])
        states = new + self._positions[places]
        for number, layer in enumerate(self._layers):
            states = layer.forward(states, self._attend(number, spans))
        return F.layer_norm(states, states.shape[-1:], self._final.weight, self._final.bias, self._final.eps)

    def read(self, row: int, count: int) -> Positions:
        """A copy of a row's first positions."""
        return Positions(self._keys[:, row, :, :count].clone(), self._values[:, row, :, :count].clone())

    def write(self, row: int, positions: Positions) -> None:
        """Begin a row with positions that were read before."""
        self._keys[:, row, :, : positions.count] = positions.keys
        self._values[:, row, :, : positions.count] = positions.values

    def _attend(self, layer: int, spans: Sequence[Span]) -> Any:
        keys, values = self._keys[layer], self._values[layer]

        def attend(mixed: Tensor) -> Tensor:
            """Queries, keys and values of the new positions, (positions, 3 * width), to what each position hears."""
            parts = mixed.view(len(mixed), 3, self._heads, -1).permute(1, 2, 0, 3)
            heard = []
            for span, at in _located(spans):
                query, key, value = parts[:, :, at : at + span.count]
                end = span.start + span.count
                keys[span.row, :, span.start : end] = key
                values[span.row, :, span.start : end] = value
                out = F.scaled_dot_product_attention(
                    query[None],
                    keys[None, span.row, :, :end],
                    values[None, span.row, :, :end],
                    attn_mask=_causal(span) if span.count > 1 else None,
                )
                heard.append(out[0].transpose(0, 1).reshape(span.count, -1))
            return torch.cat(heard)

        return attend


class _Layer:
    """One block's weights, and its arithmetic."""

    def __init__(self, block: Any, rows: int) -> None:
        self._before_attention, self._before_mlp = block.ln_1, block.ln_2
        self._mix, self._project = _Linear(block.attn.c_attn, rows), _Linear(block.attn.c_proj, rows)
        self._widen, self._narrow = _Linear(block.mlp.c_fc, rows), _Linear(block.mlp.c_proj, rows)

    def forward(self, states: Tensor, attend: Any) -> Tensor:
        mixed = self._mix(_normal(states, self._before_attention))
        states = states + self._project(attend(mixed))
        widened = F.gelu(self._widen(_normal(states, self._before_mlp)), approximate="tanh")
        return states + self._narrow(widened)


def _normal(states: Tensor, norm: Any) -> Tensor:
    return F.layer_norm(states, states.shape[-1:], norm.weight, norm.bias, norm.eps)


class _Linear:
    """A linear layer with its weights laid out anew for oneDNN, in a copy of this process's own.

    For a few rows torch's plain product takes up to three times as long. PyTorch's compiler uses the same operators.
    """

    def __init__(self, layer: Any, rows: int) -> None:
        # GPT-2 keeps its weights the other way round than `nn.Linear` does.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.t().contiguous(), rows)
        self._bias = layer.bias

    def __call__(self, states: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self._weight, self._bias, "none", [], "")
        return product


def _causal(span: Span) -> Tensor:
    """Which positions each new one hears: itself and all before it."""
    end = span.start + span.count
    return torch.ones(span.count, end, dtype=torch.bool).tril(diagonal=span.start)


def _located(spans: Sequence[Span]) -> Iterator[tuple[Span, int]]:
    """Each span with its place among the new positions."""
    at = 0
    for span in spans:
        yield span, at
        at += span.count
