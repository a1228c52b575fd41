"""The cache of keys and values that T3's attention reads: one row for each sequence that is being decoded.

What precedes every text of a voice is the same for all its utterances. It is held once, as a `Prompt`, which rows refer
to and do not copy: attention reads it once for all of them (shared-prefix or cascade attention, arXiv 2402.05099), and
a row holds an utterance's own positions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """New positions of one row: `count` of them from `start` on, counted from the beginning of its prompt."""

    row: int
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """Keys and values of the positions that precede every text of a voice: float32 (layers, heads, count, width)."""

    keys: Tensor
    values: Tensor

    @property
    def count(self) -> int:
        """How many positions they are."""
        return int(self.keys.shape[2])


class KeysValues:
    """`rows` rows of `length` positions each behind their prompts, allocated once, resident as far as written."""

    def __init__(self, *, layers: int, rows: int, heads: int, length: int, width: int) -> None:
        self._prompts: list[Prompt | None] = [None] * rows
        self._keys, self._values = (torch.empty(layers, rows, heads, length, width) for _ in range(2))

    @property
    def length(self) -> int:
        """Most positions of a row's own."""
        return int(self._keys.shape[3])

    @property
    def bytes_a_row(self) -> int:
        """Memory of a row whose every position has been written."""
        return int(2 * self._keys[:, 0].numel() * self._keys.element_size())

    def begin(self, row: int, prompt: Prompt | None) -> None:
        """Have a row's positions follow those of a prompt, or none."""
        self._prompts[row] = prompt

    def take(self, row: int, count: int) -> Prompt:
        """A copy of the first `count` of a row that follows no prompt."""
        return Prompt(self._keys[:, row, :, :count].clone(), self._values[:, row, :, :count].clone())

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, spans: Sequence[Span]) -> Tensor:
        """What each new position hears of itself and those before it in its row: (positions, heads * width).

        All three are float32 (positions, heads, width), span after span; keys and values are kept.
        """
        heard = []
        for span, at in _located(spans):
            prompt = self._prompts[span.row]
            known = 0 if prompt is None else prompt.count
            own, end = span.start - known, span.start - known + span.count
            place = slice(at, at + span.count)
            self._keys[layer, span.row, :, own:end] = keys[place].transpose(0, 1)
            self._values[layer, span.row, :, own:end] = values[place].transpose(0, 1)
            before_keys, before_values = self._keys[layer, span.row, :, :end], self._values[layer, span.row, :, :end]
            if prompt is not None:
                before_keys = torch.cat([prompt.keys[layer], before_keys], 1)
                before_values = torch.cat([prompt.values[layer], before_values], 1)
            out = F.scaled_dot_product_attention(
                queries[place].transpose(0, 1)[None],
                before_keys[None],
                before_values[None],
                attn_mask=_causal(span) if span.count > 1 else None,
            )
            heard.append(out[0].transpose(0, 1).flatten(1))
        return torch.cat(heard)

    def weights(self, layer: int, row: int, head: int, queries: Tensor, span: Span) -> Tensor:
        """How much each of a span's positions, (count, width) `queries`, hears of each in its row: (count, end).

        To be asked after `attend` has kept the span's own keys.
        """
        prompt = self._prompts[row]
        known = 0 if prompt is None else prompt.count
        end = span.start + span.count
        keys = self._keys[layer, row, head, : end - known]
        if prompt is not None:
            keys = torch.cat([prompt.keys[layer, head], keys])
        scores = queries @ keys.t() * queries.shape[-1] ** -0.5
        return torch.softmax(scores.masked_fill(~_causal(span), -torch.inf), -1)


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
