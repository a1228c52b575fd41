"""KV cache of T3's attention: one row for each sequence that is being decoded.

The positions that precede every text of a voice are the same for all its utterances. Their keys and values are held
once, as a `SharedPrefix`, which rows refer to without copying it: attention reads it once for all of them
(shared-prefix or cascade attention, arXiv 2402.05099). A row holds only the positions of its own utterance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - as all of PyTorch's users call it
from torch import Tensor

from worker.engines.chatterbox.kernels.attention_decode import KEY_BLOCK, attention_decode
from worker.precision import Precision


@dataclass(frozen=True)
class QuerySpan:
    """`count` new positions of one row, from `start` on, counted from the beginning of the row's prefix."""

    row: int
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """Keys and values of the positions that precede every text of a voice.

    Keys are (layers, heads, blocks, width, KEY_BLOCK), values (layers, heads, count, width).
    """

    keys: Tensor
    values: Tensor

    @property
    def count(self) -> int:
        """Number of positions."""
        return int(self.values.shape[2])


@dataclass(frozen=True, eq=False)
class StepPlan:
    """The new positions of one step, by how their attention is computed: spans one by one, single positions together.

    Single positions are grouped by the prefix that they share.
    """

    spans: list[tuple[QuerySpan, int]]
    """Spans of several positions, each with the index of its first position among the new ones."""
    groups: list[tuple[SharedPrefix, Tensor, Tensor, Tensor]]
    """A prefix, and for each single position behind it: index among the new positions, row, position in the row."""


class KVCache:
    """Keys and values of `rows` rows, each of `length` positions behind its prefix, allocated once.

    They are float32 in fp32, which is exact, and else float16: products of fewer bits have larger errors than that.
    """

    def __init__(
        self, *, layers: int, rows: int, heads: int, length: int, width: int, precision: Precision = Precision.FP32
    ) -> None:
        self._dtype = torch.float32 if precision is Precision.FP32 else torch.float16
        self._no_prefix = SharedPrefix(
            torch.empty(layers, heads, 0, width, KEY_BLOCK, dtype=self._dtype),
            torch.empty(layers, heads, 0, width, dtype=self._dtype),
        )
        self._prefixes = [self._no_prefix] * rows
        self._length = length
        blocks = _blocks(length)
        # Memory that was never written is not resident. Attention masks whatever lies past a row's end.
        self._keys = torch.empty(layers, rows, heads, blocks, width, KEY_BLOCK, dtype=self._dtype)
        self._values = torch.empty(layers, rows, heads, blocks * KEY_BLOCK, width, dtype=self._dtype)

    @property
    def length(self) -> int:
        """Positions that a row can hold, without its prefix."""
        return self._length

    @property
    def bytes_per_row(self) -> int:
        """Memory of a row with every position written."""
        return int(2 * self._keys[:, 0].numel() * self._keys.element_size())

    def start_row(self, row: int, prefix: SharedPrefix | None) -> None:
        """Empty a row; its positions follow those of `prefix`, or of no prefix."""
        self._prefixes[row] = prefix or self._no_prefix

    def copy_row(self, row: int, count: int) -> SharedPrefix:
        """A copy of the first `count` positions of a row, without those of its prefix."""
        keys = self._keys[:, row, :, : _blocks(count)].clone()
        return SharedPrefix(keys, self._values[:, row, :, :count].clone())

    def fill_row(self, row: int, source: SharedPrefix, count: int) -> None:
        """Write the first `count` positions of `source`, a copy of a row behind the same prefix, into a row."""
        blocks = _blocks(count)
        self._keys[:, row, :, :blocks] = source.keys[:, :, :blocks]
        self._values[:, row, :, :count] = source.values[:, :, :count]

    def plan_step(self, spans: Sequence[QuerySpan]) -> StepPlan:
        """The places of a step's new positions: for `attention`, the same in every layer."""
        longer: list[tuple[QuerySpan, int]] = []
        groups: dict[SharedPrefix, list[tuple[int, int, int]]] = {}
        index = 0
        for span in spans:
            prefix = self._prefixes[span.row]
            if span.count == 1:
                groups.setdefault(prefix, []).append((index, span.row, span.start - prefix.count))
            else:
                longer.append((span, index))
            index += span.count
        return StepPlan(longer, [(prefix, *torch.tensor(group).t().contiguous()) for prefix, group in groups.items()])

    def attention(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, plan: StepPlan) -> Tensor:
        """Causal attention of the new positions within their rows: (positions, heads * width).

        Queries, keys and values are float32 (positions, heads, width), span after span. Writes keys and values into
        the cache.
        """
        output = torch.empty(len(queries), queries.shape[1] * queries.shape[2])
        for span, first in plan.spans:
            new = slice(first, first + span.count)
            output[new] = self._span_attention(layer, queries[new], keys[new], values[new], span)
        for prefix, indices, rows, positions in plan.groups:
            # In most steps all positions are single and of one voice: then the tensors are used as they are.
            only_group = len(indices) == len(queries)
            selected = (queries, keys, values) if only_group else (queries[indices], keys[indices], values[indices])
            own = self._keys[layer], self._values[layer]
            group_output = attention_decode(selected, (prefix.keys[layer], prefix.values[layer]), own, rows, positions)
            if only_group:
                return group_output
            output[indices] = group_output
        return output

    def _span_attention(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, span: QuerySpan) -> Tensor:
        prefix = self._prefixes[span.row]
        start, end = span.start - prefix.count, span.start + span.count - prefix.count
        positions = torch.arange(start, end)
        self._keys[layer, span.row][:, positions // KEY_BLOCK, :, positions % KEY_BLOCK] = keys.to(self._dtype)
        self._values[layer, span.row, :, start:end] = values.transpose(0, 1)
        weights = self._attention_weights(layer, span, slice(None), queries.transpose(0, 1))
        on_prefix, on_row = weights.split([prefix.count, end], -1)
        own_values = self._values[layer, span.row, :, :end]
        output = on_prefix @ prefix.values[layer].float() + on_row @ own_values.float()
        return output.transpose(0, 1).flatten(1)

    def attention_weights(self, layer: int, row: int, head: int, queries: Tensor, span: QuerySpan) -> Tensor:
        """Attention weights of a span's (count, width) `queries` in one head: (count, end of the span).

        To be called after `attention` has written the span's own keys.
        """
        return self._attention_weights(layer, QuerySpan(row, span.start, span.count), head, queries)

    def _attention_weights(self, layer: int, span: QuerySpan, heads: slice | int, queries: Tensor) -> Tensor:
        prefix = self._prefixes[span.row]
        end = span.start + span.count
        scores = torch.cat(
            [
                queries @ _unblocked(prefix.keys[layer, heads], prefix.count),
                queries @ _unblocked(self._keys[layer, span.row, heads], end - prefix.count),
            ],
            -1,
        )
        scores *= queries.shape[-1] ** -0.5
        return F.softmax(scores.masked_fill_(_causal_mask(span), -torch.inf), -1)


def _blocks(count: int) -> int:
    return (count + KEY_BLOCK - 1) // KEY_BLOCK


def _unblocked(keys: Tensor, count: int) -> Tensor:
    """Keys of the first `count` positions: (…, blocks, width, KEY_BLOCK) → float32 (…, width, count)."""
    return keys[..., : _blocks(count), :, :].float().movedim(-3, -2).flatten(-2)[..., :count]


def _causal_mask(span: QuerySpan) -> Tensor:
    """True where a key's position lies after the query's: bool (count, end of the span)."""
    return torch.ones(span.count, span.start + span.count, dtype=torch.bool).triu(diagonal=span.start + 1)
