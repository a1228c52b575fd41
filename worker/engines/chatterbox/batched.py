"""The batched engine: upstream's weights and arithmetic for several utterances at once.

T3 decodes the tokens of all utterances together (see `t3.decoder`); what precedes every text of a voice is computed
once. S3Gen then turns each utterance's tokens into audio, one utterance after the other, in cooperative steps (see
`s3gen.synthesizer`). An utterance can be cancelled between any two steps.

An utterance that asks for it gets pieces of its audio while its further tokens are not drawn yet. `work_order` says
what is done first.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from worker.cards import EngineCard, FlowModel, Parameter
from worker.checkpoints.fingerprint import digest_of
from worker.contract import Utterance
from worker.engines.base import Cancellation, ModelUnavailableError, Samples, TakeReport, UnspeakableError, VoiceSource
from worker.engines.chatterbox.early_pieces import crossfade, piece_ends
from worker.engines.chatterbox.kernels import disk_cache
from worker.engines.chatterbox.kernels.simd.targets import TARGET
from worker.engines.chatterbox.kernels.weights_cache import weights_cache
from worker.engines.chatterbox.s3gen.synthesizer import LOOKAHEAD_TOKENS, Piece, Synthesizer
from worker.engines.chatterbox.t3.alignment_guard import MIN_TEXT_TOKENS, AlignmentGuard
from worker.engines.chatterbox.t3.decoder import MAX_START_POSITIONS, Decoder, Sequence, VoicePrefix
from worker.engines.chatterbox.t3.sampling import STOP, Gpt2Sampler, LlamaSampler, Sampler
from worker.engines.chatterbox.t3.tokenize import text_tokens
from worker.engines.chatterbox.t3.voice_prefix import PrefixKey, VoicePrefixCache
from worker.engines.chatterbox.takes import Takes, first_piece_seed
from worker.engines.chatterbox.token_budget import MAX_TOKENS
from worker.engines.chatterbox.trailing_audio import TrailingAudioTrimmer, without_last_token
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.conditionals import shorten_prompt
from worker.engines.chatterbox.upstream.loaded_model import LoadedModel
from worker.engines.chatterbox.upstream.loading import s3gen_path
from worker.engines.chatterbox.work_order import Work, WorkOrder
from worker.memory import trim_heap
from worker.options import EngineOptions

log = logging.getLogger(__name__)

MAX_TEXT_TOKENS = 1024
"""Text tokens of an utterance, at most: Turbo's tokenizer truncates to as many."""

MAX_POSITIONS = MAX_TEXT_TOKENS + MAX_START_POSITIONS + MAX_TOKENS
"""Positions of an utterance behind its voice prefix, at most."""

WATERMARK_FRAME = 240
"""Samples of a frame of the watermark."""

T = TypeVar("T")

NO_SAMPLES: Samples = np.empty(0, np.float32)
"""Yielded by an utterance that has no audio yet, to let the others take their step."""


@dataclass(frozen=True)
class _Sent:
    """The pieces of an utterance that have been handed out."""

    last: Piece
    voice: dict[str, Tensor]
    audio: Samples
    """Of all of them, without the watermark."""
    ending: Samples
    """The watermarked audio after the last, which fades into what follows."""


@dataclass
class _Utterance:
    """An utterance on its way through the engine."""

    request: Utterance
    source: VoiceSource
    cancellation: Cancellation
    takes: Takes
    work: Work
    sent: _Sent | None = None

    @property
    def sent_tokens(self) -> list[int]:
        """The tokens of which S3Gen has made the pieces that have been handed out."""
        return [] if self.sent is None else self.sent.last.tokens


class BatchedEngine:
    """Synthesises up to `options.slots` utterances at once; the caller advances their generators in turn.

    An utterance's audio does not depend on the other utterances. A bad take of it is discarded as soon as its tokens
    show it, and taken again in the same slot.

    While any utterance's audio is being made, no tokens are decoded, unless a listener waits for them. That utterance
    holds a slot which the next one waits for, and a decode step, which takes about as long for one utterance as for
    eight, is best made when all slots decode.

    `checkpoint` is the folder of the weights, which `worker.engines.load` has found and checked.
    """

    def __init__(self, options: EngineOptions, checkpoint: Path) -> None:
        """Raises ModelUnavailableError where the checkpoint or flow does not load, or the slots exceed the memory."""
        _check_memory(options)
        self.loaded = LoadedModel(options.engine, checkpoint, options.cache_dir, options.flow)
        self._slots = options.slots
        self._prompt_seconds = options.prompt_seconds
        self._retakes = options.retakes
        self._trimmer = TrailingAudioTrimmer() if options.trim_end else None
        upstream = self.loaded.upstream
        flow = "" if options.flow is FlowModel.UPSTREAM else f"-{options.flow}"
        weights = options.cache_dir / "weights" / f"{options.engine}-{options.precision}{flow}.weights"
        with torch.inference_mode(), weights_cache(weights, self._weights_key(options, checkpoint)):
            self._decoder = Decoder(upstream.t3, slots=options.slots, length=MAX_POSITIONS, precision=options.precision)
            self._s3gen = Synthesizer(upstream.s3gen, options.precision, self.loaded.timer, options.flow_steps)
        self._prefixes = VoicePrefixCache(self._decoder, self._t3_conditionals)
        self._order = WorkOrder()
        trim_heap()
        log.info("kernels for %s, precision %s", TARGET, options.precision)
        log.info("%d slots, each up to %.0f MiB of keys and values", self._slots, self._decoder.bytes_per_slot / 2**20)

    def _weights_key(self, options: EngineOptions, checkpoint: Path) -> str:
        """Digest of all that determines the packed weights: the code, the precision and the checkpoint's files."""
        t3, s3gen = checkpoint / self.loaded.variant.t3_file, s3gen_path(options.engine, checkpoint, options.flow)
        statuses = [(str(file), file.stat()) for file in (t3.resolve(), s3gen.resolve())]
        states = [(name, status.st_size, status.st_mtime_ns) for name, status in statuses]
        return digest_of([disk_cache.kernels_digest(), torch.__version__, options.engine, options.precision, states])

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
        if self._decoder.idle and not self._order.s3gen_queue:
            # While no utterance is in flight, as at the start. Otherwise the decoder computes the prefix in chunks,
            # together with the voice's first utterance.
            with torch.inference_mode(), self.loaded.timer("decode"):
                self._prefixes.precompute(PrefixKey(source.voice.name, self._default_exaggeration))

    def synthesize(
        self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation
    ) -> Generator[Samples, None, TakeReport]:
        """Synthesise the text and yield its audio, after NO_SAMPLES for every step before.

        It is one chunk, and one more for each piece that is handed out early.
        """
        # No context manager may span a `yield`: other utterances run in between.
        takes = Takes(utterance, self._retakes)
        current = _Utterance(utterance, source, cancellation, takes, self._order.arrive(utterance))
        while True:
            sampler = yield from self._decode(current)
            if takes.discard():
                continue
            samples = yield from self._make_audio(sampler, current)
            if samples is not None:
                break
        trim_heap()
        yield samples
        return takes.finish()

    def _decode(self, current: _Utterance) -> Generator[Samples, None, Sampler]:
        """Draw the tokens of one take, in a slot that is free again afterwards, and judge them.

        Yields the early pieces, if there are any.
        """
        takes, work = current.takes, current.work
        sequence = self._add(current.request, current.source, takes.seed)
        sampler = sequence.sampler
        ends = piece_ends(current.request, sampler.max_tokens, LOOKAHEAD_TOKENS)
        seen, spoiled = 0, False
        self._order.begin_decode(work)
        try:
            while True:
                # Another utterance's step may have drawn a token meanwhile: each is looked at, as if it were alone.
                while seen < len(sampler.tokens) and not spoiled:
                    seen += 1
                    drawn = sampler.tokens[:seen]
                    ended = sampler.finished and seen == len(sampler.tokens)
                    spoiled = not ended and takes.spoiled(drawn)
                    if (
                        ends
                        and not spoiled
                        and len(speech := sampler.speech_after(current.sent_tokens, drawn)) >= ends[0]
                    ):
                        if current.sent is None and not takes.hand_out_first_piece(speech):
                            ends.clear()
                        else:
                            del ends[0]
                            yield from self._make_piece(speech, current)
                if spoiled or sampler.finished:
                    break
                current.cancellation.check()
                if self._order.decode_is_next:
                    self._advance(sequence)
                yield NO_SAMPLES
        finally:
            self._order.end_decode(work)
            self._decoder.finish(sequence)
        takes.judge_tokens(sampler.sounds, cut=sampler.cut_short)
        return sampler

    def _make_piece(self, tokens: list[int], current: _Utterance) -> Generator[Samples, None, None]:
        voice = self._voice(current.source) if current.sent is None else current.sent.voice
        piece = yield from self._run_piece(tokens, voice, current, last=False)
        marked, audio = self._watermark(piece.wave), piece.audio
        heard = marked[piece.start : piece.end]
        if current.sent is not None:
            audio = np.concatenate([current.sent.audio, audio])
            heard = crossfade(current.sent.ending, heard)
        current.sent = _Sent(piece, voice, audio, marked[piece.end :])
        self._order.sent(current.work, len(heard) / self.card.sample_rate)
        yield heard

    def _run_piece(
        self, tokens: list[int], voice: dict[str, Tensor], current: _Utterance, *, last: bool
    ) -> Generator[Samples, None, Piece]:
        before = None if current.sent is None else current.sent.last
        steps = self._s3gen.piece_steps(before, tokens, voice, first_piece_seed(current.takes.seed), last=last)
        piece = yield from self._run_s3gen(steps, current)
        return piece

    def _make_audio(self, sampler: Sampler, current: _Utterance) -> Generator[Samples, None, Samples | None]:
        """The trimmed and watermarked audio of one take's tokens; None if it is discarded for another take.

        After early pieces, it is the rest of the audio.
        """
        if current.sent is not None:
            samples = yield from self._make_rest(current.sent, sampler, current)
            return samples
        if not sampler.s3gen_tokens:
            raise UnspeakableError("the model produced no sound for this text")
        tokens = torch.tensor(sampler.s3gen_tokens)
        steps = self._s3gen.steps(tokens, self._voice(current.source), sampler.generator)
        wave = yield from self._run_s3gen(steps, current)
        samples = self._without_noise(wave)
        current.takes.judge_audio(samples, self.card.sample_rate)
        return None if current.takes.discard() else self._watermark(self._trim(samples, current.request))

    def _make_rest(self, sent: _Sent, sampler: Sampler, current: _Utterance) -> Generator[Samples, None, Samples]:
        tokens = sampler.s3gen_tokens_after(sent.last.tokens)
        rest = yield from self._run_piece(tokens, sent.voice, current, last=True)
        whole = self._without_noise(np.concatenate([sent.audio, rest.audio]))
        current.takes.judge_audio(whole, self.card.sample_rate)
        trimmed = self._trim(whole, current.request, sent=len(sent.audio))[len(sent.audio) :]
        # What precedes the rest is watermarked with it, so that the watermark goes on, too, where the piece ends. What
        # does not fill its last frame would be dropped.
        audio = np.concatenate([rest.wave[: rest.start], trimmed, np.zeros(WATERMARK_FRAME, np.float32)])
        marked = self._watermark(audio)[rest.start : rest.start + len(trimmed)]
        return crossfade(sent.ending, marked)

    def _run_s3gen(self, steps: Generator[None, None, T], current: _Utterance) -> Generator[Samples, None, T]:
        """Run S3Gen's steps for an utterance whenever it is next; returns their result."""
        self._order.begin_s3gen(current.work)
        try:
            while True:
                current.cancellation.check()
                if self._order.s3gen_is_next(current.work):
                    try:
                        with torch.inference_mode():
                            next(steps)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                yield NO_SAMPLES
        finally:
            self._order.end_s3gen(current.work)

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
        with torch.inference_mode(), self.loaded.timer("decode"):
            self._decoder.advance(sequence)

    def _voice(self, source: VoiceSource) -> dict[str, Tensor]:
        voice: dict[str, Tensor] = shorten_prompt(self.loaded.conditionals(source.voice.name).gen, self._prompt_seconds)
        return voice

    def _without_noise(self, wave: Samples) -> Samples:
        """The audio of a whole take without its last token's, if that is noise in this model."""
        drops = self.loaded.variant.drops_last_token
        return without_last_token(wave, self.card.sample_rate) if drops else wave

    def _trim(self, samples: Samples, utterance: Utterance, *, sent: int = 0) -> Samples:
        if self._trimmer is None:
            return samples
        with self.loaded.timer("trim"):
            return self._trimmer.trim(samples, self.card.sample_rate, utterance, sent=sent)

    def _watermark(self, samples: Samples) -> Samples:
        upstream = self.loaded.upstream
        with torch.inference_mode(), patches.muted():
            watermarked: Samples = upstream.watermarker.apply_watermark(samples, sample_rate=upstream.sr)
        return watermarked.astype(np.float32, copy=False)


def _check_memory(options: EngineOptions) -> None:
    batched, total = options.batched, psutil.virtual_memory().total
    needed = options.slots * (batched.slot_bytes[options.precision] if batched is not None else 0)
    if needed > total:
        raise ModelUnavailableError(
            f"{options.slots} slots of {options.engine} take up to {needed / 2**30:.0f} GiB of memory, and this host "
            f"has {total / 2**30:.0f} GiB: ask for fewer (CHORUS_SLOTS, --slots)"
        )
