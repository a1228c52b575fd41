"""Continuous batching: utterances join and leave between steps, each of which makes one token of every one of them.

What is new to an utterance's rows, the hundreds of positions of a voice, a text, or one token, waits as embeddings and
goes through the layers together with what is new to the others: long texts in pieces, so that nobody waits for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.engines.base import UnspeakableError
from worker.engines.chatterbox.t3.alignment_guard import Guard
from worker.engines.chatterbox.t3.gpt2 import Gpt2
from worker.engines.chatterbox.t3.kv_cache import KeysValues, Prompt, Span
from worker.engines.chatterbox.t3.llama import Llama
from worker.engines.chatterbox.t3.sampling import Dictated, Sampler
from worker.precision import Precision

CHUNK = 64
"""Most positions of voices and texts that are brought in with one step: with so many, reading the weights costs no
more than computing, so that fewer would take longer in all."""

MOST_STARTS = 2
"""Most positions between a text and the first token that is drawn."""


class Backbone(Protocol):
    """The layers of one kind of T3, and what it has embedded around them. Everything is float32."""

    rows_each: int
    """Rows of the cache that an utterance takes."""
    cache: KeysValues

    def prompt(self, conditionals: Any) -> Tensor:
        """The embeddings of what precedes every text of a voice: (1, positions, width)."""

    def text(self, tokens: Tensor) -> Tensor:
        """The embeddings of (tokens,) of text and of what starts speech: (rows_each, positions, width)."""

    def token(self, token: int, number: int) -> Tensor:
        """The embedding of an utterance's speech token, the `number`-th from 1: (rows_each, 1, width)."""

    def forward(self, new: Tensor, spans: Sequence[Span], guards: Mapping[int, Guard]) -> Tensor:
        """The last layer's output for `new`, both (positions, width).

        The spans, in the order of `new`, say where each belongs; the positions before them must be there already. The
        guards, by row, are shown what they look at.
        """

    def logits(self, states: Tensor) -> Tensor:
        """The scores of all speech tokens after such outputs: (…, width) to (…, vocabulary)."""


@dataclass(eq=False)
class _Growing:
    """Rows of the cache that grow together, and the embeddings of what is new to them."""

    rows: range
    pending: Tensor
    """(rows, positions, width)."""
    length: int = 0
    """Positions that have been through the layers."""

    @property
    def left(self) -> int:
        """Positions that have not."""
        return int(self.pending.shape[1])

    def grow(self, count: int) -> None:
        """The first `count` of these have now, too."""
        self.pending = self.pending[:, count:]
        self.length += count


@dataclass(eq=False)
class Prefix(_Growing):
    """What precedes every text of a voice: computed once, in a row that no utterance has."""

    prompt: Prompt | None = None
    """None until it has been computed."""
    count: int = field(init=False)
    """Positions that it takes."""

    def __post_init__(self) -> None:
        self.count = self.left


@dataclass(eq=False)
class Row(_Growing):
    """One utterance under way."""

    prefix: Prefix = field(kw_only=True)
    sampler: Sampler = field(kw_only=True)
    begun: bool = False
    """Whether its text follows the voice already."""
    ahead: bool = False
    """Whether a step has been made that its utterance has not asked for yet."""
    fault: Exception | None = None
    """Why nothing could be drawn from its logits."""


class Decoder:
    """Decodes up to `slots` utterances of T3 at once, each of at most `length` positions. One thread only."""

    def __init__(self, t3: Any, *, slots: int, length: int, precision: Precision = Precision.FP32) -> None:
        kind: type[Gpt2 | Llama] = Gpt2 if t3.is_gpt else Llama
        each = kind.rows_each
        self._backbone: Backbone = kind(t3, precision, rows=slots * each + 1, length=length)
        self._cache = self._backbone.cache
        self._free = [range(slot * each, (slot + 1) * each) for slot in range(slots)]
        self._spare = range(slots * each, slots * each + 1)
        """The row in which voices are computed."""
        self._prefixes: deque[Prefix] = deque()
        """Those that have been asked for and not been computed yet."""
        self._rows: list[Row] = []

    @property
    def bytes_a_slot(self) -> int:
        """Most memory that an utterance's keys and values take."""
        return self._cache.bytes_a_row * self._backbone.rows_each

    @property
    def idle(self) -> bool:
        """Whether no utterance is under way."""
        return not self._rows

    def prefix(self, conditionals: Any) -> Prefix:
        """A voice whose utterances may join."""
        return Prefix(self._spare, self._backbone.prompt(conditionals))

    def compute(self, prefix: Prefix) -> None:
        """Have a voice ready before its first utterance. To be called while the decoder is idle."""
        self._want(prefix)
        while prefix.prompt is None:
            self._step()

    def join(self, prefix: Prefix, text_tokens: Tensor, sampler: Sampler) -> Row:
        """Begin an utterance. There must be a free slot. Raises UnspeakableError where it does not fit into one."""
        # The last token that is drawn is not fed any more.
        room = self._cache.length - MOST_STARTS - (sampler.most - 1)
        if len(text_tokens) > room:
            raise UnspeakableError(
                f"the text has {len(text_tokens)} tokens, and {room} fit into one utterance: "
                "split the text into several requests"
            )
        pending = self._backbone.text(text_tokens)
        self._want(prefix)
        row = Row(self._free.pop(), pending, prefix=prefix, sampler=sampler)
        self._rows.append(row)
        return row

    def leave(self, row: Row) -> None:
        """An utterance needs no more tokens."""
        self._rows.remove(row)
        self._free.append(row.rows)

    def advance(self, row: Row) -> None:
        """Take this utterance a step further, and with it all others that have not been ahead of it.

        Raises whatever went wrong with its own draw: RuntimeError where its logits hold no numbers.
        """
        if not row.ahead:
            self._step()
        row.ahead = False
        if row.fault is not None:
            raise row.fault

    def logits_along(self, prefix: Prefix, text_tokens: Tensor, speech_tokens: Sequence[int]) -> Tensor:
        """The logits that lead to each of the given tokens, whatever a sampler would have drawn.

        float32 (steps, rows, vocabulary): one row, or those with and without the text, for `sampling.guided`. It takes
        a slot meanwhile, and goes the way of every utterance: texts in pieces, then token by token.
        """
        dictated = Dictated(speech_tokens)
        row = self.join(prefix, text_tokens, dictated)
        try:
            while not dictated.finished:
                self.advance(row)
        finally:
            self.leave(row)
        return torch.stack(dictated.seen)

    def _want(self, prefix: Prefix) -> None:
        if prefix.prompt is None and prefix not in self._prefixes:
            self._prefixes.append(prefix)

    def _step(self) -> None:
        """One pass through the layers, for all that are not ahead."""
        rows = [row for row in self._rows if not row.ahead and not row.sampler.finished]
        turns = list(self._turns(rows))
        new = torch.cat([growing.pending[:, :count].flatten(0, 1) for growing, count in turns])
        spans = [Span(row, growing.length, count) for growing, count in turns for row in growing.rows]
        guards = {row.rows[0]: row.sampler.guard for row in rows if row.sampler.guard is not None}
        states = self._backbone.forward(new, spans, guards)
        drawing = list(self._grown(turns))
        if drawing:
            ends = [end for _, ends in drawing for end in ends]
            logits = self._backbone.logits(states[ends]).unflatten(0, (len(drawing), -1))
            for (row, _), its in zip(drawing, logits, strict=True):
                self._draw(row, its)
        for row in rows:
            row.ahead = True

    def _turns(self, rows: Sequence[Row]) -> Iterator[tuple[_Growing, int]]:
        """Whose pending positions go through the layers in this step, and how many."""
        room = CHUNK
        if self._prefixes:
            prefix = self._prefixes[0]
            if prefix.length == 0:
                self._cache.begin(self._spare[0], None)
            count = min(room, prefix.left)
            room -= count
            yield prefix, count
        for row in rows:
            if not row.begun and row.prefix.prompt is not None:
                for number in row.rows:
                    self._cache.begin(number, row.prefix.prompt)
                row.length, row.begun = row.prefix.count, True
            if row.begun and row.left == 1:
                yield row, 1
            elif row.begun and (count := min(room // len(row.rows), row.left)) > 0:
                room -= count * len(row.rows)
                yield row, count

    def _grown(self, turns: Sequence[tuple[_Growing, int]]) -> Iterator[tuple[Row, range]]:
        """Note what has been through the layers; who is to draw now, and the places of the states to draw from."""
        at = 0
        for growing, count in turns:
            growing.grow(count)
            ends = range(at + count - 1, at + count * len(growing.rows), count)
            at += count * len(growing.rows)
            if isinstance(growing, Row) and not growing.left:
                yield growing, ends
            elif isinstance(growing, Prefix) and not growing.left:
                growing.prompt = self._cache.take(self._spare[0], growing.length)
                self._prefixes.popleft()

    def _draw(self, row: Row, logits: Tensor) -> None:
        sampler = row.sampler
        try:
            sampler.draw(logits)
        except Exception as fault:  # noqa: BLE001 - its own utterance is told, not the one that happens to take the step
            row.fault = fault
            return
        if not sampler.finished:
            row.pending = self._backbone.token(sampler.tokens[-1], len(sampler.tokens))
