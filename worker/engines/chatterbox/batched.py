"""The batched engine: upstream's weights and arithmetic, several utterances at once.

Tokens are decoded together (see `decoder`); what precedes every text of a voice is computed once. Then each utterance's
sound is made, one after the other (see `sound`), piece by piece: between any two an utterance may be cancelled.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from worker.cards import CARDS, MAX_PROMPT_SECONDS, Parameter
from worker.contract import Utterance
from worker.engines.base import Cancellation, ModelUnavailableError, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox.s3gen.synthesizer import Synthesizer
from worker.engines.chatterbox.stock import StockEngine
from worker.engines.chatterbox.t3.alignment_guard import MIN_TEXT_TOKENS, AlignmentGuard
from worker.engines.chatterbox.t3.decoder import MAX_START_POSITIONS, Decoder, Sequence, VoicePrefix
from worker.engines.chatterbox.t3.sampling import STOP, Gpt2Sampler, LlamaSampler, Sampler
from worker.engines.chatterbox.t3.tokenize import text_tokens
from worker.engines.chatterbox.token_budget import MAX_TOKENS, token_budget
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.conditionals import fresh, shortened
from worker.memory import trim_heap
from worker.precision import Precision

log = logging.getLogger(__name__)

MOST_TEXT = 1024
"""Text tokens of an utterance: as many as Turbo's tokenizer lets through."""

LENGTH = MOST_TEXT + MAX_START_POSITIONS + MAX_TOKENS
"""Positions of an utterance's own: behind what is the same for all of its voice."""

PREFIX_POSITIONS = 3072
"""Positions of voices that are kept in memory: eight voices of Turbo (376 each, 74 MB), ninety of the Original."""

NOTHING: Samples = np.empty(0, np.float32)
"""What an utterance yields while it has no sound yet: a turn for the others."""

Key = tuple[str, float | None]
"""A voice's name and how expressive it is to be, where the model knows that."""


class BatchedEngine(StockEngine):
    """Up to `slots` utterances at once, whose generators are to be advanced in turn.

    Sound goes first: while an utterance's sound is being made, no tokens are. It holds a slot that the next utterance
    is waiting for, and a step that takes no longer for one row than for eight is best made when all slots decode.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Path,
        cache: Path,
        *,
        slots: int,
        precision: Precision = Precision.FP32,
        prompt_seconds: int = MAX_PROMPT_SECONDS,
    ) -> None:
        """Raises ModelUnavailableError where the checkpoint does not load, or this host cannot hold so many slots."""
        _check(name, slots)
        super().__init__(name, checkpoint, cache)
        self._slots = slots
        self._prompt_seconds = prompt_seconds
        with torch.inference_mode():
            self._decoder = Decoder(self._model.t3, slots=slots, length=LENGTH, precision=precision)
            self._s3gen = Synthesizer(self._model.s3gen, precision, self._stages)
        self._prefixes: OrderedDict[Key, VoicePrefix] = OrderedDict()
        self._line: deque[Sequence] = deque()
        """Utterances that have their tokens; the sound of the first is being made."""
        log.info("%d slots, each up to %.0f MiB of keys and values", slots, self._decoder.bytes_per_slot / 2**20)

    @property
    def slots(self) -> int:
        """As many as it was built with."""
        return self._slots

    def prepare(self, source: VoiceSource) -> None:
        """Have the voice's conditionals in memory. Raises VoiceUnusableError."""
        super().prepare(source)
        for key in [key for key in self._prefixes if key[0] == source.voice.name]:
            del self._prefixes[key]
        if self._decoder.idle and not self._line:
            # At the start, while nobody waits. Otherwise it comes in pieces, with its first utterance.
            self._compute(source)

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Speak the text whole; until there is sound, nothing is yielded with each turn."""
        # No block of a context manager reaches over a `yield`: others run between.
        row = self._join(utterance, source)
        try:
            while not row.sampler.finished:
                cancellation.check()
                self._advance(row)
                yield NOTHING
        finally:
            self._decoder.finish(row)
        if row.sampler.cut_short:
            log.warning("stopped after %d speech tokens: the model did not end by itself", len(row.sampler.tokens))
        pieces = self._begin_sound(row.sampler, source)
        samples: Samples | None = None
        self._line.append(row)
        try:
            while samples is None:
                cancellation.check()
                if self._line[0] is row:
                    samples = self._next_piece(pieces)
                yield NOTHING
            marked = self._marked(samples)
        finally:
            self._line.remove(row)
        trim_heap()
        yield marked

    def _join(self, utterance: Utterance, source: VoiceSource) -> Sequence:
        arguments: dict[str, Any] = dict(self._arguments(utterance, source))
        language, exaggeration = arguments.pop("language_id", None), arguments.pop("exaggeration", None)
        with torch.inference_mode():
            with patches.muted():
                text = text_tokens(self._model, self._member, utterance.text, language)
            prefix = self._prefix(source, exaggeration)
            return self._decoder.add(prefix, text, self._sampler(utterance, prefix, text, arguments))

    def _sampler(self, utterance: Utterance, prefix: VoicePrefix, text: Tensor, arguments: dict[str, Any]) -> Sampler:
        budget = min(token_budget(utterance.text), utterance.token_budget or MAX_TOKENS)
        if self._member.turbo:
            return Gpt2Sampler(seed=utterance.seed, budget=budget, **arguments)
        guarded = self._member.guarded and len(text) >= MIN_TEXT_TOKENS
        guard = AlignmentGuard(start=prefix.count, text=len(text), stop=STOP) if guarded else None
        return LlamaSampler(seed=utterance.seed, budget=budget, guard=guard, **arguments)

    def _compute(self, source: VoiceSource) -> None:
        """Have a voice's positions computed, at its usual expressiveness, if there is room for them."""
        parameter = self._card.parameter("exaggeration")
        usual = parameter.default if isinstance(parameter, Parameter) else None
        with torch.inference_mode(), self._stages("decode"):
            prefix = self._embedded(source, usual)
            if self._positions_kept + prefix.count <= PREFIX_POSITIONS:
                self._decoder.compute_prefix(prefix)
                self._prefixes[source.voice.name, usual] = prefix

    def _prefix(self, source: VoiceSource, exaggeration: float | None) -> VoicePrefix:
        key = source.voice.name, exaggeration
        if key not in self._prefixes:
            self._prefixes[key] = self._embedded(source, exaggeration)
        self._prefixes.move_to_end(key)
        while len(self._prefixes) > 1 and self._positions_kept > PREFIX_POSITIONS:
            self._prefixes.popitem(last=False)
        return self._prefixes[key]

    @property
    def _positions_kept(self) -> int:
        return sum(prefix.count for prefix in self._prefixes.values())

    def _embedded(self, source: VoiceSource, exaggeration: float | None) -> VoicePrefix:
        conditionals = fresh(self._prepared[source.voice.name], self._member).t3
        if exaggeration is not None:
            conditionals.emotion_adv = exaggeration * torch.ones(1, 1, 1)
        return self._decoder.embed_voice(conditionals)

    def _advance(self, row: Sequence) -> None:
        if not self._line:
            with torch.inference_mode(), self._stages("decode"):
                self._decoder.advance(row)

    def _begin_sound(self, sampler: Sampler, source: VoiceSource) -> Generator[None, None, Samples]:
        if not sampler.s3gen_tokens:
            raise UnspeakableError("the model made no sound of this text")
        voice = shortened(fresh(self._prepared[source.voice.name], self._member).gen, self._prompt_seconds)
        return self._s3gen.steps(torch.tensor(sampler.s3gen_tokens), voice, sampler.generator)

    def _next_piece(self, pieces: Generator[None, None, Samples]) -> Samples | None:
        try:
            with torch.inference_mode():
                next(pieces)
        except StopIteration as end:
            samples: Samples = end.value
            return samples
        return None

    def _marked(self, samples: Samples) -> Samples:
        with torch.inference_mode(), patches.muted():
            marked: Samples = self._model.watermarker.apply_watermark(samples, sample_rate=self._model.sr)
        return marked.astype(np.float32, copy=False)


def _check(name: str, slots: int) -> None:
    batched = CARDS[name].batched
    most, there = slots * (batched.slot_bytes if batched is not None else 0), psutil.virtual_memory().total
    if most > there:
        raise ModelUnavailableError(
            f"{slots} slots of {name} take up to {most / 2**30:.0f} GiB of memory, and this host has "
            f"{there / 2**30:.0f} GiB: ask for fewer (CHORUS_SLOTS, --slots)"
        )
