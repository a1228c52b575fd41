"""The batched engine: upstream's weights and arithmetic for several utterances at once.

T3 decodes the tokens of all utterances together (see `t3.decoder`); what precedes every text of a voice is computed
once. S3Gen then turns each utterance's tokens into audio, one utterance after the other, in cooperative steps (see
`s3gen.synthesizer`). An utterance can be cancelled between any two steps.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from worker.cards import CARDS, EngineCard, Parameter
from worker.contract import Utterance
from worker.engines.base import Cancellation, ModelUnavailableError, Report, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox.s3gen.synthesizer import Synthesizer
from worker.engines.chatterbox.t3.alignment_guard import MIN_TEXT_TOKENS, AlignmentGuard
from worker.engines.chatterbox.t3.decoder import MAX_START_POSITIONS, Decoder, Sequence, VoicePrefix
from worker.engines.chatterbox.t3.sampling import STOP, Gpt2Sampler, LlamaSampler, Sampler
from worker.engines.chatterbox.t3.tokenize import text_tokens
from worker.engines.chatterbox.t3.voice_prefix import PrefixKey, VoicePrefixCache
from worker.engines.chatterbox.takes import Takes
from worker.engines.chatterbox.token_budget import MAX_TOKENS
from worker.engines.chatterbox.trailing_audio import TrailingAudioTrimmer
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.conditionals import shorten_prompt
from worker.engines.chatterbox.upstream.loaded_model import LoadedModel
from worker.memory import trim_heap
from worker.options import EngineOptions

log = logging.getLogger(__name__)

MAX_TEXT_TOKENS = 1024
"""Text tokens of an utterance, at most: Turbo's tokenizer truncates to as many."""

MAX_POSITIONS = MAX_TEXT_TOKENS + MAX_START_POSITIONS + MAX_TOKENS
"""Positions of an utterance behind its voice prefix, at most."""

NO_SAMPLES: Samples = np.empty(0, np.float32)
"""Yielded by an utterance that has no audio yet, to let the others take their step."""


class BatchedEngine:
    """Synthesises up to `options.slots` utterances at once; the caller advances their generators in turn.

    An utterance's audio does not depend on the other utterances. A bad take of it is discarded as soon as its tokens
    show it, and taken again in the same slot.

    While any utterance's audio is being made, no tokens are decoded. That utterance holds a slot which the next one
    waits for, and a decode step, which takes about as long for one utterance as for eight, is best made when all slots
    decode.

    `checkpoint` is the folder of the weights, which `worker.engines.load` has found and checked.
    """

    def __init__(self, options: EngineOptions, checkpoint: Path) -> None:
        """Raises ModelUnavailableError where the checkpoint does not load, or the slots exceed this host's memory."""
        _check_memory(options.engine, options.slots)
        self.loaded = LoadedModel(options.engine, checkpoint, options.cache_dir)
        self._slots = options.slots
        self._prompt_seconds = options.prompt_seconds
        self._retakes = options.retakes
        self._trimmer = TrailingAudioTrimmer() if options.trim_end else None
        upstream = self.loaded.upstream
        with torch.inference_mode():
            self._decoder = Decoder(upstream.t3, slots=options.slots, length=MAX_POSITIONS, precision=options.precision)
            self._s3gen = Synthesizer(upstream.s3gen, options.precision, self.loaded.timer)
        self._prefixes = VoicePrefixCache(self._decoder, self._t3_conditionals)
        self._s3gen_queue: deque[Sampler] = deque()
        """The tokens of utterances that have all of them; S3Gen works on the first."""
        log.info("%d slots, each up to %.0f MiB of keys and values", self._slots, self._decoder.bytes_per_slot / 2**20)

    @property
    def card(self) -> EngineCard:
        """Name, sample rate and parameters."""
        return self.loaded.card

    @property
    def model(self) -> str:
        """The model and the folder of its weights."""
        return self.loaded.description

    @property
    def slots(self) -> int:
        """Utterances that may be in flight at once."""
        return self._slots

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds spent so far, by stage."""
        return self.loaded.timer.seconds

    def prepare(self, source: VoiceSource) -> None:
        """Load or compute a voice's conditionals. Raises VoiceUnusableError."""
        self.loaded.prepare(source)
        self._prefixes.discard(source.voice.name)
        if self._decoder.idle and not self._s3gen_queue:
            # While no utterance is in flight, as at the start. Otherwise the decoder computes the prefix in chunks,
            # together with the voice's first utterance.
            with torch.inference_mode(), self.loaded.timer("decode"):
                self._prefixes.precompute(PrefixKey(source.voice.name, self._default_exaggeration))

    def synthesize(
        self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation
    ) -> Generator[Samples, None, Report]:
        """Synthesise the text and yield its audio as one chunk, after NO_SAMPLES for every step before."""
        # No context manager may span a `yield`: other utterances run in between.
        takes = Takes(utterance, self._retakes)
        while True:
            sampler = yield from self._decode(utterance, source, takes, cancellation)
            if takes.discard():
                continue
            samples = yield from self._make_audio(sampler, utterance, source, takes, cancellation)
            if samples is not None:
                break
        trim_heap()
        yield samples
        return takes.finish()

    def _decode(
        self, utterance: Utterance, source: VoiceSource, takes: Takes, cancellation: Cancellation
    ) -> Generator[Samples, None, Sampler]:
        """Draw the tokens of one take, in a slot that is free again afterwards, and judge them."""
        sequence = self._add(utterance, source, takes.seed)
        sampler = sequence.sampler
        try:
            while not sampler.finished and not takes.spoiled(sampler.tokens):
                cancellation.check()
                self._advance(sequence)
                yield NO_SAMPLES
        finally:
            self._decoder.finish(sequence)
        takes.judge_tokens(sampler.sounds, cut=sampler.cut_short)
        return sampler

    def _make_audio(
        self, sampler: Sampler, utterance: Utterance, source: VoiceSource, takes: Takes, cancellation: Cancellation
    ) -> Generator[Samples, None, Samples | None]:
        """The trimmed and watermarked audio of one take's tokens; None if it is discarded for another take."""
        steps = self._s3gen_steps(sampler, source)
        samples: Samples | None = None
        self._s3gen_queue.append(sampler)
        try:
            while samples is None:
                cancellation.check()
                if self._s3gen_queue[0] is sampler:
                    samples = self._next_step(steps)
                yield NO_SAMPLES
            takes.judge_audio(samples, self.card.sample_rate)
            return None if takes.discard() else self._watermark(self._trim(samples, utterance))
        finally:
            self._s3gen_queue.remove(sampler)

    def _add(self, utterance: Utterance, source: VoiceSource, seed: int) -> Sequence:
        arguments: dict[str, Any] = dict(self.loaded.arguments(utterance, source))
        language, exaggeration = arguments.pop("language_id", None), arguments.pop("exaggeration", None)
        with torch.inference_mode():
            with patches.muted():
                text = text_tokens(self.loaded.upstream, self.loaded.variant, utterance.text, language)
            prefix = self._prefixes.get(PrefixKey(source.voice.name, exaggeration))
            budget = self.loaded.token_budget(utterance)
            return self._decoder.add(prefix, text, self._sampler(seed, budget, prefix, text, arguments))

    def _sampler(self, seed: int, budget: int, prefix: VoicePrefix, text: Tensor, arguments: dict[str, Any]) -> Sampler:
        if self.loaded.variant.turbo:
            return Gpt2Sampler(seed=seed, budget=budget, **arguments)
        guarded = self.loaded.variant.guarded and len(text) >= MIN_TEXT_TOKENS
        guard = AlignmentGuard(start=prefix.count, text=len(text), stop=STOP) if guarded else None
        return LlamaSampler(seed=seed, budget=budget, guard=guard, **arguments)

    @property
    def _default_exaggeration(self) -> float | None:
        parameter = self.card.parameter("exaggeration")
        return parameter.default if isinstance(parameter, Parameter) else None

    def _t3_conditionals(self, key: PrefixKey) -> Any:
        conditionals = self.loaded.conditionals(key.voice).t3
        if key.exaggeration is not None:
            conditionals.emotion_adv = key.exaggeration * torch.ones(1, 1, 1)
        return conditionals

    def _advance(self, sequence: Sequence) -> None:
        if not self._s3gen_queue:
            with torch.inference_mode(), self.loaded.timer("decode"):
                self._decoder.advance(sequence)

    def _s3gen_steps(self, sampler: Sampler, source: VoiceSource) -> Generator[None, None, Samples]:
        if not sampler.s3gen_tokens:
            raise UnspeakableError("the model produced no sound for this text")
        voice = shorten_prompt(self.loaded.conditionals(source.voice.name).gen, self._prompt_seconds)
        return self._s3gen.steps(torch.tensor(sampler.s3gen_tokens), voice, sampler.generator)

    def _next_step(self, steps: Generator[None, None, Samples]) -> Samples | None:
        try:
            with torch.inference_mode():
                next(steps)
        except StopIteration as end:
            samples: Samples = end.value
            return samples
        return None

    def _trim(self, samples: Samples, utterance: Utterance) -> Samples:
        if self._trimmer is None:
            return samples
        with self.loaded.timer("trim"):
            return self._trimmer.trim(samples, self.card.sample_rate, utterance)

    def _watermark(self, samples: Samples) -> Samples:
        upstream = self.loaded.upstream
        with torch.inference_mode(), patches.muted():
            watermarked: Samples = upstream.watermarker.apply_watermark(samples, sample_rate=upstream.sr)
        return watermarked.astype(np.float32, copy=False)


def _check_memory(name: str, slots: int) -> None:
    batched = CARDS[name].batched
    needed, total = slots * (batched.slot_bytes if batched is not None else 0), psutil.virtual_memory().total
    if needed > total:
        raise ModelUnavailableError(
            f"{slots} slots of {name} take up to {needed / 2**30:.0f} GiB of memory, and this host has "
            f"{total / 2**30:.0f} GiB: ask for fewer (CHORUS_SLOTS, --slots)"
        )
