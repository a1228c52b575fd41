"""Which workers died lately: pure. It tells an utterance that kills workers from one that was there by chance.

An utterance that two workers died of is poison, as a rule. But where others have been dying as well (the kernel is out
of memory, somebody restarts them), being there twice is no proof.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set

LATELY_SECONDS = 60.0


class Deaths:
    """The deaths of the last minute. Workers are known by the names of their incarnations; `now` never goes back."""

    def __init__(self) -> None:
        self._deaths: deque[tuple[float, str]] = deque()

    def note(self, worker: str, now: float) -> None:
        """A worker died, or stopped answering."""
        self._deaths.append((now, worker))
        self._forget(now)

    def others(self, victims: Set[str], now: float) -> int:
        """How many died lately that are not among `victims`."""
        self._forget(now)
        return sum(worker not in victims for _, worker in self._deaths)

    def _forget(self, now: float) -> None:
        while self._deaths and self._deaths[0][0] < now - LATELY_SECONDS:
            self._deaths.popleft()
