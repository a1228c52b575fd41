"""The search for the knee, the highest rate of requests that keeps a target. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOWEST_SHARE = 64
"""A server that does not keep the target at this part of the first rate is not asked further."""


@dataclass(frozen=True)
class TriedRate:
    """One rate that was tried."""

    rate: float
    held: bool
    """Whether it kept the target."""


@dataclass(frozen=True)
class Search:
    """Steps the rate up until the target breaks, then halves the distance to the last rate that held.

    Rates are per second; `precision` is the distance between the two, as a share, at which the search ends.
    """

    start: float
    factor: float = 1.5
    precision: float = 0.05
    max_rates: int = 24

    def knee(self, tried: Sequence[TriedRate]) -> float | None:
        """The highest rate that held, below all that did not; None if none has."""
        broken = min((each.rate for each in tried if not each.held), default=float("inf"))
        return max((each.rate for each in tried if each.held and each.rate < broken), default=None)

    def next_rate(self, tried: Sequence[TriedRate]) -> float | None:
        """The rate to try next; None once the knee is found, or cannot be."""
        if len(tried) >= self.max_rates:
            return None
        broken = min((each.rate for each in tried if not each.held), default=None)
        held = self.knee(tried)
        if broken is None:
            return self.start if held is None else held * self.factor
        if held is None:
            return broken / 2 if broken > self.start / LOWEST_SHARE else None
        return None if broken <= held * (1 + self.precision) else (held + broken) / 2
