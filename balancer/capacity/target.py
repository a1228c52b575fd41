"""What the answers of a server are to be like under load."""

from __future__ import annotations

import math
import re

from balancer.capacity.step import Step
from balancer.host.conditions import FrozenModel

RISE_SHARE = 0.25
"""A step whose latencies rise by this share of the limit while it lasts is not steady: its queue grows."""


class Target(FrozenModel):
    """The limits that a rate of requests has to keep. None: no limit.

    With `first_sound` or `gaps`, the requests are streamed, and `p95` counts to the end of the stream.
    """

    p95: float | None = None
    """Seconds until the complete answer, for 95 of 100 requests."""
    first_sound: float | None = None
    """Seconds until the first audio of a stream, for 95 of 100 requests."""
    gaps: int | None = None
    """Times in all that listeners had nothing to play."""

    @property
    def streams(self) -> bool:
        """Whether it takes streams to tell."""
        return self.first_sound is not None or self.gaps is not None

    def broken_by(self, step: Step) -> tuple[str, ...]:
        """Why a step misses the target; empty if it keeps it."""
        reasons = []
        if step.failed:
            reasons.append(f"{step.failed} of {step.requests} requests failed")
        if self.p95 is not None and step.latency.p95 > self.p95:
            reasons.append(f"p95 {step.latency.p95:.2f} s")
        if self.first_sound is not None and step.first_sound is not None and step.first_sound.p95 > self.first_sound:
            reasons.append(f"first sound p95 {step.first_sound.p95:.2f} s")
        if self.gaps is not None and step.gaps > self.gaps:
            reasons.append(f"{step.gaps} gaps")
        limit = self.first_sound or self.p95
        if limit is not None and step.rise > RISE_SHARE * limit:
            reasons.append(f"the queue grows: latencies rose by {step.rise:.2f} s")
        return tuple(reasons)

    def __str__(self) -> str:
        """The limits in words."""
        limits = []
        if self.p95 is not None:
            limits.append(f"p95 ≤ {self.p95:g} s")
        if self.first_sound is not None:
            limits.append(f"first sound p95 ≤ {self.first_sound:g} s")
        if self.gaps is not None:
            limits.append(f"gaps ≤ {self.gaps}")
        return ", ".join([*limits, "no failed request"])


def parse_seconds(text: str) -> float:
    """The seconds in a duration such as `2s`, `500ms`, `1.5m` or `2`. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|min|h)?\s*", text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration such as 2s, 500ms or 10m")
    seconds = float(found[1]) * {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600}[found[2] or "s"]
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is not more than 0")
    return seconds
