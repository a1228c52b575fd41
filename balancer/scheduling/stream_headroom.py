"""What running streams take of the audio that the host can make, and what is left for more. Pure: it has no clock.

A stream plays `speed` seconds of audio in a second, and takes as much of the host until all of its audio is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from balancer.errors import NoHeadroomError

MIN_RETRY_SECONDS = 1.0


@dataclass(eq=False)
class StreamDemand:
    """What one stream takes while its audio is made."""

    speed: float
    """Audio seconds per second."""
    ends_at: float
    """When a listener has played all of it, if it never runs dry."""


class StreamHeadroom:
    """The demands of running streams. `capacity` tells the audio seconds that the host makes in a second.

    A stream that would take more than is left is refused, or with `best_effort` served anyway.
    """

    def __init__(self, capacity: Callable[[], float], *, best_effort: bool) -> None:
        self._capacity = capacity
        self._best_effort = best_effort
        self._demands: set[StreamDemand] = set()

    @property
    def taken(self) -> float:
        """Audio seconds per second that running streams take."""
        return sum(demand.speed for demand in self._demands)

    @property
    def left(self) -> float:
        """Audio seconds per second that are left; negative if streams may run dry."""
        return self._capacity() - self.taken

    def admits(self, speed: float) -> bool:
        """Whether a stream may begin. Without a worker nothing is known, so it may."""
        return self._best_effort or not self._capacity() or self.left >= speed

    def refusal(self, now: float) -> NoHeadroomError:
        """The error of a stream that may not begin; it may be tried again when a running one should have ended."""
        first_end = min((demand.ends_at for demand in self._demands), default=now)
        return NoHeadroomError(
            f"the workers make {max(0.0, self.left):.2g} s of audio in a second beyond what running streams play, and "
            "this one would play more; try again later, or ask for the whole audio with `stream: false`",
            retry_after=max(MIN_RETRY_SECONDS, first_end - now),
        )

    def add(self, demand: StreamDemand) -> None:
        """A stream begins."""
        self._demands.add(demand)

    def remove(self, demand: StreamDemand) -> None:
        """The audio of a stream is made, or nobody wants it any more."""
        self._demands.discard(demand)
