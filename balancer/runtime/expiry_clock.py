"""A clock by which things expire that a jump of the wall clock must not expire."""

from __future__ import annotations

import time
from collections.abc import Callable


def _since_boot() -> float:
    """Seconds since the host has started, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ExpiryClock:
    """Unix time, but never ahead of a clock that has run evenly since this one was made.

    After a jump of the wall clock to a later time, things expire later than they could; to an earlier one, when the
    wall clock says so.
    """

    def __init__(self, clock: Callable[[], float] = time.time, steady: Callable[[], float] = _since_boot) -> None:
        self._clock = clock
        self._steady = steady
        self._offset = clock() - steady()

    def __call__(self) -> float:
        """The time in seconds."""
        return min(self._clock(), self._steady() + self._offset)
