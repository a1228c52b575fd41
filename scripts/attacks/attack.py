"""An attack, what must hold of it, and its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from scripts.attacks.target import ChorusPlan, Target, TargetPlan
from scripts.support.check import Check

Checks = list[Check]


@dataclass(frozen=True)
class Criteria:
    """What must hold of an attack besides its own checks. Some attacks are on one of these things itself."""

    latency: bool = True
    """Others' cached answers take at most MAX_LATENCY_FACTOR times as long as before, or MAX_LATENCY_SECONDS."""
    failures: bool = True
    """No request of others fails."""
    refusals: bool = True
    """No connection of others is refused, even if requests may fail."""
    memory: bool = True
    """The balancer takes at most its bound of memory."""
    same_balancer: bool = True
    """The balancer is the same process afterwards."""
    serves: bool = True
    """Afterwards it synthesizes a new text."""
    idle: bool = True
    """Afterwards all slots are free and the descriptors are closed; not if the attack leaves jobs in the queue."""


ENDS_SERVER = Criteria(latency=False, failures=False, refusals=False, same_balancer=False, serves=False, idle=False)
"""Of an attack that stops the server itself."""


@dataclass(frozen=True)
class Attack:
    """One attack."""

    name: str
    title: str
    """What is tried, in one line."""
    run: Callable[[Target], Awaitable[Checks]]
    """Attacks the target, and returns the attack's own checks."""
    target: TargetPlan = field(default_factory=ChorusPlan)
    """Attacks with equal plans share a server, one after another."""
    criteria: Criteria = field(default_factory=Criteria)
    max_seconds: float = 45.0
    """An attack that takes longer is ended, and does not hold."""


def all_spoken(name: str, statuses: Sequence[str]) -> Check:
    """The check that all requests for speech were answered with audio."""
    bad = Counter(status for status in statuses if status != "200")
    listed = "".join(f", {count} {status}" for status, count in bad.most_common(2))
    return Check(name, f"{len(statuses) - bad.total()} of {len(statuses)} are 200{listed}", not bad)


@dataclass(frozen=True)
class Outcome:
    """What an attack cost others, and whether everything held."""

    name: str
    title: str
    checks: Sequence[Check]
    usable: bool = False
    """Whether the server can be attacked again: it is as it was before."""
    seconds: float = 0.0
    calm_p99: float | None = None
    """Seconds of others' cached answers before the attack, 99th percentile; None if none was answered."""
    attacked_p99: float | None = None
    """The same while it ran."""
    failures: int = 0
    """Others' requests that failed."""
    peak_memory: int = 0
    """Largest resident memory of the balancer, in bytes."""
    peak_descriptors: int = 0

    @property
    def held(self) -> bool:
        """Whether all checks hold."""
        return all(check.holds for check in self.checks)
