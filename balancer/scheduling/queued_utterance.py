"""An utterance in the queue: its attempt's id, its expected length, its terms. Immutable value objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from balancer.scheduling.priority import Priority

NOTHING_HEARD = 0.0
"""The playout deadline of the beginning of a stream."""


class AttemptId(NamedTuple):
    """Identifies one attempt at one utterance. Queue places and slots are held by attempts, not by utterances."""

    utterance: str
    """Id of the utterance."""
    number: int = 0
    """Attempts before this one: 0 for the first."""
    hedge: bool = False
    """Whether it runs beside another attempt of the same number."""

    def __str__(self) -> str:
        """The utterance id that the worker is given, unique per attempt: `u`, `u.1` for a retry, `u.1+` for a hedge."""
        number = f".{self.number}" if self.number else ""
        return f"{self.utterance}{number}{'+' if self.hedge else ''}"

    def retry(self) -> AttemptId:
        """The id of the next attempt."""
        return AttemptId(self.utterance, self.number + 1)

    def hedged(self) -> AttemptId:
        """The id of a hedge beside this attempt."""
        return AttemptId(self.utterance, self.number, hedge=True)


@dataclass(frozen=True)
class Terms:
    """How an utterance is scheduled. Callers take turns; deadlines are on the event loop's clock, in seconds."""

    caller: str = ""
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    admitted: bool = False
    """Whether the queue takes it even when it is full, since a part of its request has been synthesized already."""
    playout_deadline: float | None = None
    """When a listener, who plays the audio while it is made, has nothing left to play; for the beginning NOTHING_HEARD,
    which is before any other. None: nobody listens before the audio is complete."""


@dataclass(frozen=True)
class QueuedUtterance:
    """One attempt at an utterance that needs a slot."""

    attempt_id: AttemptId
    audio_seconds: float
    """Expected length of the audio."""
    terms: Terms = Terms()
    avoided: frozenset[str] = frozenset()
    """Workers that get it only if no other is there: they have failed on it."""
