"""The embedded engine: hibari, a small English neural voice that ships inside its package.

Acoustic model by ONNX Runtime, waveform by an inverse STFT in numpy; about 100 times real time on one core.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hibari import Hibari

from worker.contract import CARDS, EngineCard, Utterance
from worker.engines.base import Cancellation, Samples, UnspeakableError, VoiceSource

PIECE_PHONEMES = 400
"""Most phonemes that the model sees at once. Its own splitter cuts at punctuation only, and memory grows with the
piece: 5,000 characters without a full stop took 2 GB in one piece."""


class HibariEngine:
    """hibari's bundled voice. `threads` is the width of its ONNX Runtime pool."""

    def __init__(self, threads: int) -> None:
        self._hibari = Hibari(threads=threads)

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
        if not pieces:
            raise UnspeakableError("the text has nothing that this English voice can say")
        for ids in pieces:
            cancellation.check()
            yield self._hibari.from_ids(ids, rng=random)

    def _pieces(self, text: str) -> Iterator[str]:
        for phonemes in self._hibari.phonemize(text):
            rest = phonemes
            while len(rest) > PIECE_PHONEMES:
                cut = rest.rfind(" ", 1, PIECE_PHONEMES)
                cut = cut if cut > 0 else PIECE_PHONEMES
                yield rest[:cut]
                rest = rest[cut:].lstrip()
            yield rest
