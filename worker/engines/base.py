"""The engine protocol: the interface between the runner and a model.

The runner's thread builds, prepares and drives an engine; no other thread ever calls it. An engine takes voice, seed
and parameters from each utterance alone: nothing of one utterance may be audible in another.
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
    """An error of an engine, with a message for the client or the operator.

    EngineError
    ├── ModelUnavailableError   the model cannot load: what is missing and what to run
    ├── VoiceUnusableError      the voice's reference clip cannot be used: what is wrong with it
    ├── UnspeakableError        the text has nothing that this engine can say
    └── CancelledError          the utterance was cancelled
    """


class ModelUnavailableError(EngineError):
    """Weights or libraries are missing or damaged; the message says what to run."""


class VoiceUnusableError(EngineError):
    """The voice's reference clip cannot be used; the message says what is wrong with it."""


class UnspeakableError(EngineError):
    """The text has nothing that this engine can say."""


class CancelledError(EngineError):
    """The utterance was cancelled and the engine stopped."""


class Cancellation:
    """A request to stop, set on the event loop; the model's thread reads it and calls `progressed` at each check."""

    def __init__(self, progressed: Callable[[], None] = lambda: None) -> None:
        self._requested = threading.Event()
        self._progressed = progressed

    def request(self) -> None:
        """Ask the engine to stop at its next check."""
        self._requested.set()

    def check(self) -> None:
        """Report progress, and raise CancelledError if a stop was requested; to be called between tokens or chunks."""
        self._progressed()
        if self._requested.is_set():
            raise CancelledError


@dataclass(frozen=True)
class VoiceSource:
    """A voice with the path of its reference clip; None for an engine's built-in voice."""

    voice: Voice
    reference: Path | None
    fingerprint: tuple[int, ...] = ()
    """Identifies the version of the clip: another clip at the same path has another fingerprint."""


@dataclass(frozen=True)
class TakeReport:
    """A model's takes of an utterance, of which it may have discarded some."""

    discarded: tuple[str, ...] = ()
    """The flaw of each take that was discarded, such as `loop`."""
    flaw: str | None = None
    """The flaw of the take that was handed out, as far as the engine can tell."""


class Engine(Protocol):
    """One loaded model."""

    @property
    def card(self) -> EngineCard:
        """Name, sample rate and parameters."""

    @property
    def model(self) -> str:
        """The loaded weights, as an operator would name them."""

    @property
    def slots(self) -> int:
        """Utterances that may be in flight at once; 1 unless the engine batches."""

    def prepare(self, source: VoiceSource) -> None:
        """Prepare a voice (the conditionals of its reference clip), before its first utterance and after it changed.

        Raises VoiceUnusableError.
        """

    def synthesize(self, utterance: Utterance, source: VoiceSource, cancellation: Cancellation) -> Iterator[Samples]:
        """Synthesise one utterance, yielding chunks of audio as they are made.

        The same utterance always gives the same samples. Raises UnspeakableError, or CancelledError soon after
        `cancellation` is requested. An engine that judges what its model made returns a TakeReport from its generator.
        """
