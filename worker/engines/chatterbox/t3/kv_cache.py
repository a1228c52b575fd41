"""The cache of keys and values that T3's attention reads: one row for each sequence that is being decoded.

What precedes every text of a voice is the same for all its utterances. It is held once, as a `Prompt`, which rows refer
to and do not copy: attention reads it once for all of them (shared-prefix or cascade attention, arXiv 2402.05099), and
a row holds an utterance's own positions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_decode import BLOCK, attend_step


@dataclass(frozen=True)
class Span:
    """New positions of one row: `count` of them from `start` on, counted from the beginning of its prompt."""

    row: int
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """Keys and values of the positions that precede every text of a voice.

    Keys are float32 (layers, heads, blocks, width, BLOCK), values (layers, heads, count, width).
    """

    keys: Tensor
    values: Tensor

    @property
    def count(self) -> int:
        """How many positions they are."""
        return int(self.values.shape[2])


@dataclass(frozen=True, eq=False)
class _Places:
    """Where one step's new positions go: those of whole texts one by one, single ones by the prompt that they share."""

    texts: list[tuple[Span, int]]
    """Each with its place among the new positions."""
    groups: list[tuple[Prompt, Tensor, Tensor, Tensor]]
    """A prompt, and of each single position behind it: place among the new ones, row, position in the row."""


class KeysValues:
    """`rows` rows of `length` positions each behind their prompts, allocated once."""

    def __init__(self, *, layers: int, rows: int, heads: int, length: int, width: int) -> None:
        self._nothing = Prompt(torch.empty(layers, heads, 0, width, BLOCK), torch.empty(layers, heads, 0, width))
        self._prompts = [self._nothing] * rows
        self._length = length
        blocks = _blocks(length)
        # Memory that nobody has written is not resident. What is read past a row's end is not looked at.
        self._keys = torch.empty(layers, rows, heads, blocks, width, BLOCK)
        self._values = torch.empty(layers, rows, heads, blocks * BLOCK, width)

    @property
    def length(self) -> int:
        """Most positions of a row's own."""
        return self._length

    @property
    def bytes_a_row(self) -> int:
        """Memory of a row whose every position has been written."""
        return int(2 * self._keys[:, 0].numel() * self._keys.element_size())

    def begin(self, row: int, prompt: Prompt | None) -> None:
        """Have a row's positions follow those of a prompt, or none."""
        self._prompts[row] = prompt or self._nothing

    def take(self, row: int, count: int) -> Prompt:
        """A copy of the first `count` of a row that follows no prompt."""
        keys = self._keys[:, row, :, : _blocks(count)].clone()
        return Prompt(keys, self._values[:, row, :, :count].clone())

    def places(self, spans: Sequence[Span]) -> _Places:
        """Where the new positions of a step go, for `attend` in every layer."""
        texts: list[tuple[Span, int]] = []
        groups: dict[Prompt, list[tuple[int, int, int]]] = {}
        at = 0
        for span in spans:
            prompt = self._prompts[span.row]
            if span.count == 1:
                groups.setdefault(prompt, []).append((at, span.row, span.start - prompt.count))
            else:
                texts.append((span, at))
            at += span.count
        return _Places(texts, [(prompt, *torch.tensor(group).t().contiguous()) for prompt, group in groups.items()])

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, places: _Places) -> Tensor:
        """What each new position hears of itself and those before it in its row: (positions, heads * width).

        All three are float32 (positions, heads, width), span after span; keys and values are kept.
        """
        heard = torch.empty(len(queries), queries.shape[1] * queries.shape[2])
        for span, at in places.texts:
            place = slice(at, at + span.count)
            heard[place] = self._attend_text(layer, queries[place], keys[place], values[place], span)
        for prompt, ats, rows, positions in places.groups:
            # Mostly all of them are of one voice, and single ones: then nothing has to be picked out.
            alone = len(ats) == len(queries)
            new = (queries, keys, values) if alone else (queries[ats], keys[ats], values[ats])
            own = self._keys[layer], self._values[layer]
            its = attend_step(new, (prompt.keys[layer], prompt.values[layer]), own, rows, positions)
            if alone:
                return its
            heard[ats] = its
        return heard

    def _attend_text(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, span: Span) -> Tensor:
        prompt = self._prompts[span.row]
        own, end = span.start - prompt.count, span.start + span.count - prompt.count
        places = torch.arange(own, end)
        self._keys[layer, span.row][:, places // BLOCK, :, places % BLOCK] = keys
        self._values[layer, span.row, :, own:end] = values.transpose(0, 1)
        weights = self._weights(layer, span, slice(None), queries.transpose(0, 1))
        known, its = weights.split([prompt.count, end], -1)
        heard = known @ prompt.values[layer] + its @ self._values[layer, span.row, :, :end]
        return heard.transpose(0, 1).flatten(1)

    def weights(self, layer: int, row: int, head: int, queries: Tensor, span: Span) -> Tensor:
        """How much each of a span's positions, (count, width) `queries`, hears of each in its row: (count, end).

        To be asked after `attend` has kept the span's own keys.
        """
        return self._weights(layer, Span(row, span.start, span.count), head, queries)

    def _weights(self, layer: int, span: Span, heads: slice | int, queries: Tensor) -> Tensor:
        prompt = self._prompts[span.row]
        end = span.start + span.count
        scores = torch.cat(
            [
                queries @ _lanes(prompt.keys[layer, heads], prompt.count),
                queries @ _lanes(self._keys[layer, span.row, heads], end - prompt.count),
            ],
            -1,
        )
        scores *= queries.shape[-1] ** -0.5
        return F.softmax(scores.masked_fill_(_later(span), -torch.inf), -1)


def _blocks(count: int) -> int:
    return (count + BLOCK - 1) // BLOCK


def _lanes(keys: Tensor, count: int) -> Tensor:
    """The first `count` positions' keys in blocks, (…, blocks, width, BLOCK), as (…, width, count)."""
    return keys[..., : _blocks(count), :, :].movedim(-3, -2).flatten(-2)[..., :count]


def _later(span: Span) -> Tensor:
    """Which positions each new one must not hear: those after it."""
    return torch.ones(span.count, span.start + span.count, dtype=torch.bool).triu(diagonal=span.start + 1)
