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

PIECE_PHONEMES = 400
"""Most phonemes that the model sees at once. Its own splitter cuts at punctuation only, and memory grows with the
piece: 5,000 characters without a full stop took 2 GB in one piece."""


RUN_CHARACTERS = 36
"""Most characters in a row without a space. The phonemizer takes time with the cube of a run with hyphens or changing
case (400 characters: 16 s), and fails on a number of more digits."""

_LONG_RUN = re.compile(rf"(?=\S{{{RUN_CHARACTERS + 1}}})(?:\S{{,{RUN_CHARACTERS - 1}}}[^\w\s]|\S{{{RUN_CHARACTERS}}})")
"""The beginning of a run that is too long, up to its last punctuation mark if it has one."""


class HibariEngine:
    """hibari's bundled voice. `threads` is the width of its ONNX Runtime pool."""

    def __init__(self, threads: int) -> None:
        self._hibari = Hibari(threads=threads)
        self._sounds = {number for phoneme, number in self._hibari.vocab.items() if phoneme.isalpha()}

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
        """Nothing to do: the voice is the model."""

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Speak the text piece by piece; the seed fixes the noise component, the only random part."""
        random = np.random.default_rng(utterance.seed)
        pieces = [ids for ids in map(self._hibari.ids, self._pieces(utterance.text)) if len(ids) > 2]
        if not any(map(self._sounds.intersection, pieces)):  # punctuation alone would be half a second of breath
            raise UnspeakableError("the text has nothing that this English voice can say")
        for ids in pieces:
            cancellation.check()
            yield self._hibari.from_ids(ids, rng=random)

    def _pieces(self, text: str) -> Iterator[str]:
        for phonemes in self._hibari.phonemize(phonemizable(text)):
            rest = phonemes
            while len(rest) > PIECE_PHONEMES:
                cut = rest.rfind(" ", 1, PIECE_PHONEMES)
                cut = cut if cut > 0 else PIECE_PHONEMES
                yield rest[:cut]
                rest = rest[cut:].lstrip()
            yield rest


def phonemizable(text: str) -> str:
    """`text` without what hibari's phonemizer fails on or takes minutes for: digits like ① and runs without a space."""
    plain = "".join(
        unicodedata.normalize("NFKC", character) if character.isdigit() and not character.isdecimal() else character
        for character in text
    )
    return _LONG_RUN.sub(r"\g<0> ", plain)
