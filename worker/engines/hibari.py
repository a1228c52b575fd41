"""The embedded engine: hibari, a small English neural voice that ships inside its package.

Acoustic model by ONNX Runtime, waveform by an inverse STFT in numpy; about 100 times real time on one core.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
from hibari import Hibari

from worker.cards import CARDS, EngineCard
from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, UnspeakableError, VoiceSource

MAX_CHUNK_PHONEMES = 400
"""Phonemes that the model synthesises at once. hibari's own splitter cuts at punctuation only, and memory grows with
the chunk: 5,000 characters without a full stop took 2 GB in one chunk."""


MAX_RUN_CHARACTERS = 36
"""Characters in a row without a space. The phonemizer's time grows with the cube of a run with hyphens or mixed case
(400 characters: 16 s), and it fails on a number with more digits."""

_LONG_RUN = re.compile(
    rf"(?=\S{{{MAX_RUN_CHARACTERS + 1}}})(?:\S{{,{MAX_RUN_CHARACTERS - 1}}}[^\w\s]|\S{{{MAX_RUN_CHARACTERS}}})"
)
"""The start of a run that is too long, up to its last punctuation mark if it has one."""


class HibariEngine:
    """hibari's bundled voice. `threads` is the width of its ONNX Runtime pool."""

    def __init__(self, threads: int) -> None:
        self._hibari = Hibari(threads=threads)
        self._letters = {number for phoneme, number in self._hibari.vocab.items() if phoneme.isalpha()}

    @property
    def card(self) -> EngineCard:
        """Name, sample rate and (no) parameters."""
        return CARDS["hibari"]

    @property
    def model(self) -> str:
        """The bundled voice's name."""
        return f"hibari/{self._hibari.voice}"

    @property
    def slots(self) -> int:
        """One: the model runs one utterance at a time."""
        return 1

    def prepare(self, source: VoiceSource) -> None:
        """Do nothing: the voice is part of the model."""

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Synthesise the text chunk by chunk; the seed fixes the noise component, the only random part."""
        random = np.random.default_rng(utterance.seed)
        chunks = [ids for ids in map(self._hibari.ids, self._chunks(utterance.text)) if len(ids) > 2]
        if not any(map(self._letters.intersection, chunks)):  # punctuation alone would be half a second of breath
            raise UnspeakableError("the text has nothing that this English voice can say")
        for ids in chunks:
            cancellation.check()
            yield self._hibari.from_ids(ids, rng=random)

    def _chunks(self, text: str) -> Iterator[str]:
        for phonemes in self._hibari.phonemize(to_phonemizable(text)):
            rest = phonemes
            while len(rest) > MAX_CHUNK_PHONEMES:
                cut = rest.rfind(" ", 1, MAX_CHUNK_PHONEMES)
                cut = cut if cut > 0 else MAX_CHUNK_PHONEMES
                yield rest[:cut]
                rest = rest[cut:].lstrip()
            yield rest


def to_phonemizable(text: str) -> str:
    """`text` in a form that hibari's phonemizer handles: plain digits instead of ①, no long runs without a space."""
    plain = "".join(
        unicodedata.normalize("NFKC", character) if character.isdigit() and not character.isdecimal() else character
        for character in text
    )
    return _LONG_RUN.sub(r"\g<0> ", plain)
