"""An engine that a test holds and lets go: it implements the engine protocol and speaks numbers instead of sound.

Every word of a text is one piece, and every sample of a piece is that word's number: `"3 4"` is a piece of threes,
then one of fours. `unspeakable`, `explode` and a voice named `broken` bring about what their names say.
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
TIMEOUT = 30.0
"""Seconds until an engine that nobody lets go gives up."""

CARD = CARDS["hibari"].model_copy(
    update={"name": "held", "parameters": (Parameter(name="warmth", minimum=0, maximum=1, default=0.5),)}
)


class HeldEngine:
    """Speaks at once, or after `hold()` only when let go: one piece for each `step()`, all after `go()`."""

    def __init__(self, *, slots: int = 1) -> None:
        self._slots = slots
        self._steps = threading.Semaphore(0)
        self._held = False
        self._inside = 0
        self.most_inside = 0
        """Most calls that were ever under way together."""
        self.threads: set[int] = set()
        self.prepared: list[VoiceSource] = []
        self.begun: list[str] = []
        """Ids of the utterances whose synthesis began, in order."""
        self.closed: list[str] = []
        """Ids of the utterances whose synthesis ended, however it did."""
        self.pieces: Counter[str] = Counter()
        """Pieces made, by utterance."""

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

    def go(self) -> None:
        self._held = False
        self._steps.release()

    def prepare(self, source: VoiceSource) -> None:
        self._enter()
        self.prepared.append(source)
        self._inside -= 1
        if source.voice.name == "broken":
            raise RuntimeError("the clip is silent")

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        self._enter()
        self.begun.append(utterance.id)
        try:
            # The warm-up's text is words; everything else is told apart by its numbers.
            for word in utterance.text.split():
                if self._held and not self._steps.acquire(timeout=TIMEOUT):
                    raise TimeoutError("nobody let the engine go")
                cancellation.check()
                if word == "unspeakable":
                    raise UnspeakableError("there is nothing to say")
                if word == "explode":
                    raise ZeroDivisionError("a secret of the engine")
                self.pieces[utterance.id] += 1
                number = int(word) if word.isdecimal() else 0
                yield np.full(PIECE_SAMPLES, number / 32767, np.float32)
        finally:
            self.closed.append(utterance.id)
            self._inside -= 1

    def _enter(self) -> None:
        self._inside += 1
        self.most_inside = max(self.most_inside, self._inside)
        self.threads.add(threading.get_ident())
