"""The batched engine of Turbo and Nano: upstream's weights, several utterances at once.

Tokens are decoded together (see `decoder`); what precedes every text of a voice is computed once. The sound of each
utterance's tokens is then made by upstream's own S3Gen, one after the other.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chatterbox.models.s3gen.const import S3GEN_SIL
from chatterbox.tts_turbo import punc_norm

from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox import upstream
from worker.engines.chatterbox.budget import MOST_TOKENS, token_budget
from worker.engines.chatterbox.conditionals import fresh
from worker.engines.chatterbox.decoder import Decoder, Row
from worker.engines.chatterbox.gpt2 import Positions
from worker.engines.chatterbox.sampling import Gpt2Sampler
from worker.engines.chatterbox.stock import StockEngine
from worker.memory import give_back

log = logging.getLogger(__name__)

MOST_POSITIONS = 2560
"""What precedes a text takes 376, the text up to the 1,024 of upstream's tokenizer, its speech tokens 1,001."""

PROMPTS = 8
"""Voices whose positions are kept in memory, 74 MB each in Turbo."""

SPEECH_TOKENS = 6561
"""Tokens from there on have a meaning, but no sound."""

MEAN_FLOW_STEPS = 2

NOTHING: Samples = np.empty(0, np.float32)
"""What an utterance yields while its tokens are decoded: a turn for the others."""


class BatchedEngine(StockEngine):
    """Up to `slots` utterances at once, whose generators are to be advanced in turn."""

    def __init__(self, name: str, checkpoint: Path, cache: Path, *, slots: int) -> None:
        super().__init__(name, checkpoint, cache)
        self._slots = slots
        self._decoder = Decoder(self._model.t3, slots=slots, length=MOST_POSITIONS)
        self._prompts: OrderedDict[str, Positions] = OrderedDict()
        log.info("%d slots, each up to %.0f MiB of keys and values", slots, self._decoder.bytes_a_slot / 2**20)

    @property
    def slots(self) -> int:
        """As many as it was built with."""
        return self._slots

    def prepare(self, source: VoiceSource) -> None:
        """Have the voice's conditionals in memory. Raises VoiceUnusableError."""
        super().prepare(source)
        self._prompts.pop(source.voice.name, None)

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Speak the text whole; while its tokens are made, nothing is yielded with each of them."""
        # No block of a context manager reaches over a `yield`: others run between.
        row = self._join(utterance, source)
        try:
            while not row.sampler.finished:
                cancellation.check()
                self._advance(row)
                yield NOTHING
        finally:
            self._decoder.leave(row)
        if row.sampler.cut_short:
            log.warning("stopped after %d speech tokens: the model did not end by itself", len(row.sampler.tokens))
        samples = self._sound(row, source, cancellation)
        give_back()
        yield samples

    def _join(self, utterance: Utterance, source: VoiceSource) -> Row:
        arguments: dict[str, Any] = self._arguments(utterance, source)
        hp = self._model.t3.hp
        sampler = Gpt2Sampler(
            seed=utterance.seed,
            start=hp.start_speech_token,
            stop=hp.stop_speech_token,
            budget=min(token_budget(utterance.text), utterance.token_budget or MOST_TOKENS),
            **arguments,
        )
        tokens = self._model.tokenizer(punc_norm(utterance.text), return_tensors="pt", truncation=True).input_ids[0]
        with torch.inference_mode():
            prompt = self._prompt(source)
            room = self._decoder.length - prompt.count - sampler.most - 1
            if len(tokens) > room:
                raise UnspeakableError(
                    f"the text has {len(tokens)} tokens, and {room} fit into one utterance: "
                    "split the text into several requests"
                )
            return self._decoder.join(prompt, tokens, sampler)

    def _prompt(self, source: VoiceSource) -> Positions:
        name = source.voice.name
        if name not in self._prompts:
            conditionals = fresh(self._prepared[name], self._member)
            self._prompts[name] = self._decoder.prompt(conditionals.t3)
            if len(self._prompts) > PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(name)
        return self._prompts[name]

    def _advance(self, row: Row) -> None:
        with torch.inference_mode():
            self._decoder.advance(row)

    def _sound(self, row: Row, source: VoiceSource, cancellation: Cancellation) -> Samples:
        """What upstream's `generate` does once it has the tokens."""
        tokens = [token for token in row.sampler.spoken if token < SPEECH_TOKENS] + [S3GEN_SIL] * 3
        self._cancellation = cancellation
        try:
            with torch.inference_mode(), upstream.muted():
                # Upstream draws the flow's noise from the generator that drew the tokens.
                torch.set_rng_state(row.sampler.generator.get_state())
                sound, _ = self._model.s3gen.inference(
                    speech_tokens=torch.tensor(tokens),
                    ref_dict=fresh(self._prepared[source.voice.name], self._member).gen,
                    n_cfm_timesteps=MEAN_FLOW_STEPS,
                )
                samples = sound.squeeze(0).numpy()
                marked: Samples = self._model.watermarker.apply_watermark(samples, sample_rate=self._model.sr)
        finally:
            self._cancellation = Cancellation()
        return marked.astype(np.float32, copy=False)
