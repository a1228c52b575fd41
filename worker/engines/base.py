"""The engine protocol: what the runner asks of a model.

An engine is built, prepared and driven by one thread, the runner's, and never sees a second one. It takes its
voice, seed and parameters from each utterance alone: nothing of one utterance may be heard in another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voices.registry import Voice
from worker.cards import EngineCard
from worker.contract import Utterance

Samples = NDArray[np.float32]
"""float32 mono at the engine's sample rate, shape (samples,), in [-1, 1]."""


class EngineError(Exception):
    """What an engine can say went wrong; the message is fit for the client or the operator.

    EngineError
    ├── ModelUnavailableError   it cannot load: what is missing and what to run
    ├── VoiceUnusableError      the voice's reference clip cannot be used: what is wrong with it
    ├── UnspeakableError        the text holds nothing that this engine can say
    └── CancelledError          it stopped because it was asked to
    """


class ModelUnavailableError(EngineError):
    """Weights or libraries are missing or damaged; the message says what to run."""


class VoiceUnusableError(EngineError):
    """The voice's reference clip cannot be used; the message says what is wrong with it."""


class UnspeakableError(EngineError):
    """The text holds nothing that this engine can say."""


class CancelledError(EngineError):
    """The utterance was cancelled and the engine stopped."""


class Cancellation:
    """A request to stop, made on the event loop and read by the model's thread; `progressed` is told of each look."""

    def __init__(self, progressed: Callable[[], None] = lambda: None) -> None:
        self._requested = threading.Event()
        self._progressed = progressed

    def request(self) -> None:
        """Ask the engine to stop at its next opportunity."""
        self._requested.set()

    def check(self) -> None:
        """Raise CancelledError if a stop was asked for. Engines call it between tokens or pieces, and make progress."""
        self._progressed()
        if self._requested.is_set():
            raise CancelledError


@dataclass(frozen=True)
class VoiceSource:
    """A voice with the place of its reference clip; the clip is None for an engine's built-in voice."""

    voice: Voice
    reference: Path | None
    fingerprint: tuple[int, ...] = ()
    """Tells the clip from one that takes its place later."""


class Engine(Protocol):
    """One loaded model."""

    @property
    def card(self) -> EngineCard:
        """Name, sample rate and parameters."""

    @property
    def model(self) -> str:
        """Which weights are loaded, as an operator would name them."""

    @property
    def slots(self) -> int:
        """Utterances it can have under way at once; 1 unless it batches."""

    def prepare(self, source: VoiceSource) -> None:
        """Make a voice ready (conditionals of a reference clip), before its first utterance and when it changed.

        Raises VoiceUnusableError.
        """

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Speak one utterance, yielding audio as it is made.

        The same utterance always makes the same samples. Raises UnspeakableError, or CancelledError soon after
        `cancellation` is requested.
        """
