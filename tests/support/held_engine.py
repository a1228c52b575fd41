"""An engine that a test can hold and release. It implements the engine protocol and yields numbers instead of audio.

Every word of a text becomes one piece of samples, all of which have the word's number as value: `"3 4"` is a piece of
threes, then a piece of fours. The words `unspeakable`, `explode` and `exhaust` raise errors, and so does a voice named
`broken`. The word `long` is a piece of LONG_SAMPLES zeros.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np

from worker.cards import CARDS, EngineCard, Parameter
from worker.contract import Utterance
from worker.engines.base import Cancellation, Samples, UnspeakableError, VoiceSource

PIECE_SAMPLES = 5
"""Samples of each piece."""
LONG_SAMPLES = 2**20
"""Samples of a piece that is longer than a frame may be."""
TIMEOUT = 30.0
"""Seconds after which an engine that is not released raises TimeoutError."""

CARD = CARDS["hibari"].model_copy(
    update={"name": "held", "parameters": (Parameter(name="warmth", minimum=0, maximum=1, default=0.5),)}
)


class HeldEngine:
    """Yields pieces at once or, after `hold()`, one for each `step()`, and all after `release()`."""

    def __init__(self, *, slots: int = 1) -> None:
        self._slots = slots
        self._steps = threading.Semaphore(0)
        self._held = False
        self._concurrent = 0
        self.max_concurrent = 0
        """The largest number of concurrent calls."""
        self.threads: set[int] = set()
        """Threads that have called the engine."""
        self.prepared: list[VoiceSource] = []
        """Voices that have been prepared, in order."""
        self.started: list[str] = []
        """Ids of the utterances whose synthesis has started, in order."""
        self.ended: list[str] = []
        """Ids of the utterances whose synthesis has ended, with or without an error."""
        self.pieces: Counter[str] = Counter()
        """Number of pieces by utterance."""

    @property
    def card(self) -> EngineCard:
        return CARD

    @property
    def model(self) -> str:
        return "held/numbers"

    @property
    def slots(self) -> int:
        return self._slots

    def hold(self) -> None:
        self._held = True

    def step(self) -> None:
        self._steps.release()

    def release(self) -> None:
        self._held = False
        self._steps.release()

    def prepare(self, source: VoiceSource) -> None:
        self._enter()
        self.prepared.append(source)
        self._concurrent -= 1
        if source.voice.name == "broken":
            raise RuntimeError("the clip is silent")

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        self._enter()
        self.started.append(utterance.id)
        try:
            # The text of the warm-up has words without numbers.
            for word in utterance.text.split():
                if self._held and not self._steps.acquire(timeout=TIMEOUT):
                    raise TimeoutError("the engine was not released")
                cancellation.check()
                if word == "unspeakable":
                    raise UnspeakableError("there is nothing to say")
                if word == "explode":
                    raise ZeroDivisionError("a secret of the engine")
                if word == "exhaust":
                    raise MemoryError
                self.pieces[utterance.id] += 1
                if word == "long":
                    yield np.zeros(LONG_SAMPLES, np.float32)
                    continue
                number = int(word) if word.isdecimal() else 0
                yield np.full(PIECE_SAMPLES, number / 32767, np.float32)
        finally:
            self.ended.append(utterance.id)
            self._concurrent -= 1

    def _enter(self) -> None:
        self._concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self._concurrent)
        self.threads.add(threading.get_ident())
