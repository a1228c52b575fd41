"""A clock for code that takes one: it stands still until the test advances it."""

from __future__ import annotations


class Clock:
    """Returns `now`, in seconds, which the test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
