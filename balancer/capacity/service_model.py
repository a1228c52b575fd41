"""How long a host takes for an utterance and a request, as far as it was measured. Pure.

An utterance of `c` characters takes `base + per_character * c` seconds on an idle host, and longer by a factor that
grows with the share of the host's slots in use: workers share caches, memory and, in a batch, one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from balancer.capacity.step import StepTotals
from balancer.host.conditions import FrozenModel

Floats = NDArray[np.float64]


class Level(FrozenModel):
    """Texts of one segment, of which so many were always under way (a closed loop)."""

    clients: int
    seconds: float
    characters: tuple[int, ...]
    """Of each request."""
    latencies: tuple[float, ...]
    """Of each request, in seconds."""
    audio_seconds: float
    totals: StepTotals

    @property
    def service(self) -> float:
        """Mean seconds of an utterance on its slot."""
        return self.totals.synthesis_seconds / max(1.0, self.totals.utterances)

    @property
    def used(self) -> float:
        """Mean number of slots in use."""
        return self.totals.synthesis_seconds / self.seconds

    @property
    def overhead(self) -> float:
        """Mean seconds of a request outside of queue and slot."""
        queue = self.totals.queue_seconds / max(1.0, self.totals.utterances)
        return max(0.0, float(np.mean(self.latencies)) - queue - self.service)


class ServiceModel(FrozenModel):
    """The times of one host, all of whose slots are equal. Seconds."""

    base: float
    per_character: float
    slowdown: tuple[tuple[float, float], ...]
    """Shares of the slots in use, ascending, each with the factor by which an utterance then takes longer."""
    overhead: tuple[tuple[float, float], ...]
    """The same shares, each with the seconds of a request outside of queue and slot."""
    spread: tuple[float, ...]
    """Equally probable factors by which an utterance's time differs from the expected one; their mean is 1."""
    balancer_seconds: float
    """CPU time of the balancer for an utterance. All of it is taken to be on one core, though some is in threads."""
    audio_per_character: float

    @classmethod
    def of(cls, levels: Sequence[Level], slots: int, balancer_seconds: float) -> Self:
        """Fit the model to measured levels, of which the first is that of one client."""
        alone = levels[0]
        characters = np.array(alone.characters, float)
        fixed, per_character = _line(characters, np.array(alone.latencies))
        # What a client waits for besides the slot is the same for every length: the slot's part is the rest.
        base = max(0.0, alone.service - per_character * float(characters.mean()))
        expected = np.maximum(1e-6, fixed + per_character * characters)
        spread = np.array(alone.latencies) / expected
        points: dict[float, tuple[float, float]] = {}
        for level in levels:
            usual = base + per_character * float(np.mean(level.characters))
            share = round(min(1.0, level.used / slots), 3)
            points[share] = (max(1.0, level.service / max(usual, 1e-6)), level.overhead)
        return cls(
            base=base,
            per_character=per_character,
            slowdown=tuple((share, points[share][0]) for share in sorted(points)),
            overhead=tuple((share, points[share][1]) for share in sorted(points)),
            spread=tuple((spread / spread.mean()).round(4).tolist()),
            balancer_seconds=balancer_seconds,
            audio_per_character=sum(level.audio_seconds for level in levels)
            / max(1, sum(sum(level.characters) for level in levels)),
        )

    def expected(self, characters: int) -> float:
        """Seconds of an utterance on an idle host."""
        return self.base + self.per_character * characters

    def slowdown_at(self, share: float) -> float:
        """The factor by which an utterance takes longer with that share of the slots in use."""
        return _interpolated(self.slowdown, share)

    def overhead_at(self, share: float) -> float:
        """Seconds of a request outside of queue and slot with that share of the slots in use."""
        return _interpolated(self.overhead, share)


def _interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at x on the line through points of ascending x; beyond the last, its own."""
    return float(np.interp(x, [point[0] for point in points], [point[1] for point in points]))


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """The intercept and the slope of the line through the points by least squares; neither is negative."""
    if len(x) < 2 or float(np.var(x)) == 0:
        return float(y.mean()), 0.0
    slope = max(0.0, float(np.cov(x, y, bias=True)[0, 1] / np.var(x)))
    slope = min(slope, float(y.mean() / x.mean()))
    return float(y.mean() - slope * x.mean()), slope
