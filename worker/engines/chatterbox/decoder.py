"""Continuous batching: utterances join and leave between steps, each of which makes one token of every one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.engines.chatterbox.gpt2 import Gpt2, Positions, Span
from worker.engines.chatterbox.sampling import Gpt2Sampler


@dataclass
class Row:
    """One utterance under way."""

    index: int
    sampler: Gpt2Sampler
    length: int
    """Positions that are in the cache."""
    advanced: bool = False
    """Whether a step has made a token that its utterance has not asked for yet."""


class Decoder:
    """Decodes up to `slots` utterances of T3 at once. One thread only."""

    def __init__(self, t3: Any, *, slots: int, length: int) -> None:
        self._t3 = t3
        self._layers = Gpt2(t3, rows=slots + 1, length=length)
        self._scratch = slots
        """The row in which what precedes texts is computed, so that this disturbs nobody."""
        self._free = list(range(slots))
        self._rows: list[Row] = []

    @property
    def bytes_a_slot(self) -> int:
        """Most memory that an utterance's keys and values take."""
        return self._layers.bytes_a_row

    @property
    def length(self) -> int:
        """Most positions of an utterance: what precedes its text, the text, and its tokens."""
        return self._layers.length

    def prompt(self, conditionals: Any) -> Positions:
        """What the layers make of a voice, which is the same before every text."""
        embedded = self._t3.prepare_conditioning(conditionals)[0]
        self._layers.forward(embedded, [Span(self._scratch, 0, len(embedded))])
        return self._layers.read(self._scratch, len(embedded))

    def join(self, prompt: Positions, text_tokens: Tensor, sampler: Gpt2Sampler) -> Row:
        """Begin an utterance: its first token is drawn when this returns. There must be a free slot."""
        start = torch.tensor([self._t3.hp.start_speech_token])
        new = torch.cat([self._t3.text_emb(text_tokens), self._t3.speech_emb(start)])
        row = Row(self._free.pop(), sampler, prompt.count)
        self._rows.append(row)
        try:
            self._layers.write(row.index, prompt)
            states = self._layers.forward(new, [Span(row.index, row.length, len(new))])
            row.length += len(new)
            sampler.draw(self._t3.speech_head(states[-1]))
        except BaseException:
            self.leave(row)
            raise
        return row

    def leave(self, row: Row) -> None:
        """An utterance needs no more tokens."""
        self._rows.remove(row)
        self._free.append(row.index)

    def advance(self, row: Row) -> None:
        """Make this utterance's next token, and with it one of every other."""
        if not row.advanced:
            self._step()
        row.advanced = False

    def _step(self) -> None:
        rows = [row for row in self._rows if not row.sampler.finished and not row.advanced]
        tokens = torch.tensor([row.sampler.tokens[-1] for row in rows])
        states = self._layers.forward(self._t3.speech_emb(tokens), [Span(row.index, row.length, 1) for row in rows])
        for row, logits in zip(rows, self._t3.speech_head(states), strict=True):
            row.length += 1
            row.sampler.draw(logits)
            row.advanced = True
