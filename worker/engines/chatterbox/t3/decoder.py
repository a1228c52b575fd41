"""Continuous batching of T3: utterances are added and finished between steps, and each step draws a token for each.

An utterance's new positions (hundreds of a voice, a text, or one token) wait as embeddings. Each step takes some of
every utterance's through the layers together. Long texts are split over several steps, so that they do not delay other
utterances.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.engines.base import UnspeakableError
from worker.engines.chatterbox.t3.alignment_guard import AlignmentGuard
from worker.engines.chatterbox.t3.gpt2 import Gpt2
from worker.engines.chatterbox.t3.kv_cache import KVCache, QuerySpan, SharedPrefix
from worker.engines.chatterbox.t3.llama import Llama
from worker.engines.chatterbox.t3.sampling import ForcedTokens, Sampler
from worker.precision import Precision

PREFILL_CHUNK = 64
"""Positions of voices and texts per step, at most. At this size the arithmetic takes as long as reading the weights:
smaller chunks would take longer in total."""

MAX_START_POSITIONS = 2
"""Positions between a text and the first drawn token, at most."""


class Backbone(Protocol):
    """The embeddings and layers of one kind of T3. All tensors are float32."""

    rows_per_utterance: int
    """Rows of the KV cache that an utterance takes. A second one has no text: its embeddings before the start of speech
    are those of any text of that length."""
    cache: KVCache

    def embed_voice(self, conditionals: Any) -> Tensor:
        """Embeddings of the positions that precede every text of a voice: (1, positions, width)."""

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Embeddings of text tokens, (tokens,), and of the start of speech: (rows_per_utterance, positions, width)."""

    def embed_token(self, token: int, number: int) -> Tensor:
        """Embedding of an utterance's `number`-th speech token, from 1: (rows_per_utterance, 1, width)."""

    def forward(self, new: Tensor, spans: list[QuerySpan], guards: Mapping[int, AlignmentGuard]) -> Tensor:
        """The last layer's output for the new positions: (positions, width) → (positions, width).

        `spans`, in the order of `new`, say where the positions belong; the positions before them must have been
        computed. `guards`, by row, receive the attention weights that they need.
        """

    def logits(self, states: Tensor) -> Tensor:
        """Logits of the speech tokens: (…, width) → (…, vocabulary)."""


@dataclass(eq=False)
class _CacheRows:
    """Rows of the KV cache that are filled together, with the embeddings that have not been computed yet."""

    rows: range
    pending: Tensor
    """Embeddings that have not been through the layers: (rows, positions, width)."""
    length: int = 0
    """Positions that have been through the layers."""

    @property
    def pending_count(self) -> int:
        """Positions that have not been through the layers."""
        return int(self.pending.shape[1])

    def advance(self, count: int) -> None:
        """Note that the first `count` pending positions have been through the layers."""
        self.pending = self.pending[:, count:]
        self.length += count


@dataclass(eq=False)
class VoicePrefix(_CacheRows):
    """The positions that precede every text of a voice, computed once, in a row that no utterance uses."""

    shared: SharedPrefix | None = None
    """Keys and values; None until they have been computed."""
    without_text: SharedPrefix | None = None
    """Keys and values of the second row of the longest text so far, up to the start of speech; every other text's are
    the first of them."""
    count: int = field(init=False)
    """Number of positions."""

    def __post_init__(self) -> None:
        self.count = self.pending_count

    @property
    def kept(self) -> int:
        """Positions that have keys and values of their own, those without text included."""
        return self.count + self.known

    @property
    def known(self) -> int:
        """Positions of a second row that need not be computed again."""
        return 0 if self.without_text is None else self.without_text.count


@dataclass(eq=False)
class Sequence(_CacheRows):
    """One utterance that is being decoded."""

    prefix: VoicePrefix = field(kw_only=True)
    sampler: Sampler = field(kw_only=True)
    text: int = field(kw_only=True)
    """Positions of its text."""
    known: int = 0
    """Positions behind the prefix that the first row alone computes."""
    started: bool = False
    """Whether its rows follow the voice prefix, which must have been computed."""
    ahead: bool = False
    """Whether a step has drawn a token that `Decoder.advance` has not been called for yet."""
    error: Exception | None = None
    """Error of the last draw."""

    @property
    def due(self) -> tuple[range, int]:
        """The rows that go on next, and for how many positions at most."""
        alone = self.prefix.count + self.known - self.length
        return (self.rows[:1], alone) if alone > 0 else (self.rows, self.pending_count)


@dataclass(frozen=True)
class _Advance:
    """Pending positions that go through the layers in a step: the first `count` of each of `rows`."""

    cache_rows: _CacheRows
    rows: range
    count: int

    @property
    def embeddings(self) -> Tensor:
        """(positions of all rows, width)."""
        return self.cache_rows.pending[: len(self.rows), : self.count].flatten(0, 1)

    @property
    def spans(self) -> list[QuerySpan]:
        """The row and positions of each sequence's embeddings."""
        return [QuerySpan(row, self.cache_rows.length, self.count) for row in self.rows]


class Decoder:
    """Decodes up to `slots` utterances at once, each of at most `length` positions. Not thread-safe.

    An utterance's tokens do not depend on the other utterances.
    """

    def __init__(self, t3: Any, *, slots: int, length: int, precision: Precision = Precision.FP32) -> None:
        kind: type[Gpt2 | Llama] = Gpt2 if t3.is_gpt else Llama
        rows = kind.rows_per_utterance
        self._backbone: Backbone = kind(t3, precision, rows=slots * rows + 1, length=length)
        self._cache = self._backbone.cache
        self._free_rows = [range(slot * rows, (slot + 1) * rows) for slot in range(slots)]
        self._prefix_rows = range(slots * rows, slots * rows + 1)
        """The row in which voice prefixes are computed."""
        self._pending_prefixes: deque[VoicePrefix] = deque()
        """Prefixes that an utterance waits for."""
        self._sequences: list[Sequence] = []

    @property
    def bytes_per_slot(self) -> int:
        """Memory of an utterance's keys and values, at most."""
        return self._cache.bytes_per_row * self._backbone.rows_per_utterance

    @property
    def idle(self) -> bool:
        """Whether no utterance is being decoded."""
        return not self._sequences

    @property
    def free_slots(self) -> int:
        """Utterances that can be added now."""
        return len(self._free_rows)

    def embed_voice(self, conditionals: Any) -> VoicePrefix:
        """The prefix of a voice, not computed yet, from upstream's conditionals of T3."""
        return VoicePrefix(self._prefix_rows, self._backbone.embed_voice(conditionals))

    def compute_prefix(self, prefix: VoicePrefix) -> None:
        """Compute a prefix before its first utterance. The decoder must be idle."""
        self._request_prefix(prefix)
        while prefix.shared is None:
            self._step()

    def add(self, prefix: VoicePrefix, text_tokens: Tensor, sampler: Sampler) -> Sequence:
        """Start an utterance in a free slot, of which there must be one.

        Raises UnspeakableError where text and speech do not fit into a slot's positions.
        """
        # The last drawn token is not fed back.
        room = self._cache.length - MAX_START_POSITIONS - (sampler.max_tokens - 1)
        if len(text_tokens) > room:
            raise UnspeakableError(
                f"the text has {len(text_tokens)} tokens, and {room} fit into one utterance: "
                "split the text into several requests"
            )
        pending = self._backbone.embed_text(text_tokens)
        self._request_prefix(prefix)
        sequence = Sequence(self._free_rows.pop(), pending, prefix=prefix, sampler=sampler, text=len(text_tokens))
        self._sequences.append(sequence)
        return sequence

    def finish(self, sequence: Sequence) -> None:
        """Free the slot of an utterance, whether it is complete or not."""
        self._sequences.remove(sequence)
        self._free_rows.append(sequence.rows)

    def advance(self, sequence: Sequence) -> None:
        """Take an utterance one step further.

        The step also serves every other utterance that is not a step ahead already. Raises the error of the
        utterance's own draw: RuntimeError where its logits contain NaN.
        """
        if not sequence.ahead:
            self._step()
        sequence.ahead = False
        if sequence.error is not None:
            raise sequence.error

    def forced_logits(self, prefix: VoicePrefix, text_tokens: Tensor, speech_tokens: list[int]) -> Tensor:
        """The logits that lead to each of the given tokens (teacher forcing): float32 (steps, rows, vocabulary).

        There is one row, or two for `classifier_free_guidance`: with and without the text. The utterance takes a slot
        and is decoded like any other: its text in chunks, then token by token.
        """
        forced = ForcedTokens(speech_tokens)
        sequence = self.add(prefix, text_tokens, forced)
        try:
            while not forced.finished:
                self.advance(sequence)
        finally:
            self.finish(sequence)
        return torch.stack(forced.logits)

    def _request_prefix(self, prefix: VoicePrefix) -> None:
        if prefix.shared is None and prefix not in self._pending_prefixes:
            self._pending_prefixes.append(prefix)

    def _step(self) -> None:
        """One pass through the layers for all utterances that are not a step ahead."""
        sequences = [each for each in self._sequences if not each.ahead and not each.sampler.finished]
        schedule = list(self._schedule_step(sequences))
        new = torch.cat([advance.embeddings for advance in schedule])
        spans = [span for advance in schedule for span in advance.spans]
        guards = {each.rows[0]: each.sampler.guard for each in sequences if each.sampler.guard is not None}
        states = self._backbone.forward(new, spans, guards)
        drawing = list(self._record_step(schedule))
        if drawing:
            last_states = [index for _, indices in drawing for index in indices]
            logits = self._backbone.logits(states[last_states]).unflatten(0, (len(drawing), -1))
            for (sequence, _), own_logits in zip(drawing, logits, strict=True):
                self._draw(sequence, own_logits)
        for sequence in sequences:
            sequence.ahead = True

    def _schedule_step(self, sequences: list[Sequence]) -> Iterator[_Advance]:
        """The positions that go through the layers in this step."""
        room = PREFILL_CHUNK
        if self._pending_prefixes:
            prefix = self._pending_prefixes[0]
            if prefix.length == 0:
                self._cache.start_row(self._prefix_rows[0], None)
            count = min(room, prefix.pending_count)
            room -= count
            yield _Advance(prefix, prefix.rows, count)
        for sequence in sequences:
            if not sequence.started and sequence.prefix.shared is not None:
                self._start(sequence, sequence.prefix.shared)
            rows, most = sequence.due
            if sequence.started and sequence.pending_count == 1:
                yield _Advance(sequence, rows, 1)
            elif sequence.started and (count := min(room // len(rows), most)) > 0:
                room -= count * len(rows)
                yield _Advance(sequence, rows, count)

    def _start(self, sequence: Sequence, shared: SharedPrefix) -> None:
        """Have a sequence follow its voice's prefix, and its second row what is known of every text's."""
        for row in sequence.rows:
            self._cache.start_row(row, shared)
        sequence.length, sequence.started = sequence.prefix.count, True
        for row in sequence.rows[1:]:
            if (known := sequence.prefix.without_text) is not None:
                sequence.known = min(known.count, sequence.text)
                self._cache.fill_row(row, known, sequence.known)

    def _keep_row_without_text(self, sequence: Sequence) -> None:
        """Keep what a longer text than any before has added to its second row."""
        for row in sequence.rows[1:]:
            if sequence.prefix.known < sequence.text:
                sequence.prefix.without_text = self._cache.copy_row(row, sequence.text)

    def _record_step(self, schedule: list[_Advance]) -> Iterator[tuple[Sequence, range]]:
        """Note which positions have been computed.

        Yields every sequence with no pending position left, which draws a token now, with the indices of the states to
        draw from.
        """
        index = 0
        for advance in schedule:
            cache_rows, rows, count = advance.cache_rows, advance.rows, advance.count
            cache_rows.advance(count)
            last_states = range(index + count - 1, index + count * len(rows), count)
            index += count * len(rows)
            if isinstance(cache_rows, Sequence) and not cache_rows.pending_count:
                self._keep_row_without_text(cache_rows)
                yield cache_rows, last_states
            elif isinstance(cache_rows, VoicePrefix) and not cache_rows.pending_count:
                cache_rows.shared = self._cache.copy_row(self._prefix_rows[0], cache_rows.length)
                self._pending_prefixes.popleft()

    def _draw(self, sequence: Sequence, logits: Tensor) -> None:
        sampler = sequence.sampler
        try:
            sampler.draw(logits)
        except Exception as error:  # noqa: BLE001 - `advance` raises it to its own utterance, not to the step's caller
            sequence.error = error
            return
        if not sampler.finished:
            sequence.pending = self._backbone.embed_token(sampler.tokens[-1], len(sampler.tokens))
