"""Decides whether an utterance that failed on a worker is retried. Pure: every call is given `now`.

An utterance on which an engine failed is tried once elsewhere: one worker may be at fault, two are not. Three rules
hold for crashes: an utterance that crashed several workers is poisoned; where many workers crash, an utterance may have
been on several of them by chance (out of memory, a restart by hand) and gets more attempts; and a budget for the whole
fleet suspends retries where workers crash faster than they complete requests, since retries would crash the next ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set
from enum import Enum

POISON_THRESHOLD = 2
"""Strikes after which an utterance is poisoned, unless at least as many other workers crashed lately. A strike is a
worker that crashed or timed out on the utterance."""

MAX_STRIKES = 4
"""Strikes after which an utterance is poisoned in any case."""

CRASH_WINDOW_SECONDS = 60.0

RETRIES_PER_SUCCESS = 0.25
MIN_RESERVE = 20
RESERVE_PER_SLOT = 4
"""Every worker of a host may crash at once, and again while it starts, and nothing is lost."""
REFILL_SECONDS = 2.0
"""The reserve regains one retry in this time, without any success."""


class RetryDecision(Enum):
    """The answer of RetryPolicy.decide."""

    RETRY = "retry"
    POISONED = "poisoned"
    """The utterance is given to no other worker."""
    SUSPENDED = "suspended"
    """The retry budget is exhausted."""


class RetryPolicy:
    """The retry decisions for one fleet. Workers are named as in WorkerProcess.name; `now` never goes back."""

    def __init__(self) -> None:
        self._crashes = CrashWindow()
        self._budget = RetryBudget()

    def record_crash(self, worker: str, now: float) -> None:
        """Record that a worker crashed or stopped answering."""
        self._crashes.record(worker, now)

    def record_success(self) -> None:
        """Record that an utterance was completed."""
        self._budget.earn()

    def decide(self, crashed_workers: Sequence[str], now: float, *, slots: int) -> RetryDecision:
        """Whether to retry an utterance; RETRY takes one retry from the budget.

        `crashed_workers` has a worker for each strike of the utterance, `slots` counts those of the fleet.
        """
        strikes = len(crashed_workers)
        by_chance = self._crashes.others(set(crashed_workers), now) >= strikes
        if strikes >= (MAX_STRIKES if by_chance else POISON_THRESHOLD):
            return RetryDecision.POISONED
        return RetryDecision.RETRY if self._budget.spend(now, slots=slots) else RetryDecision.SUSPENDED

    def retries_failure(self, struck_workers: Sequence[str], now: float, *, slots: int) -> bool:
        """Whether to retry an utterance on which an engine failed; True takes one retry from the budget.

        `struck_workers` has a worker for each strike of the utterance, a failure or a crash.
        """
        return len(struck_workers) < POISON_THRESHOLD and self._budget.spend(now, slots=slots)


class CrashWindow:
    """The crashes of the last CRASH_WINDOW_SECONDS."""

    def __init__(self) -> None:
        self._crashes: deque[tuple[float, str]] = deque()

    def record(self, worker: str, now: float) -> None:
        """Record that a worker crashed or stopped answering."""
        self._crashes.append((now, worker))
        self._drop_old(now)

    def others(self, crashed_workers: Set[str], now: float) -> int:
        """Number of recent crashes of workers that are not in `crashed_workers`."""
        self._drop_old(now)
        return sum(worker not in crashed_workers for _, worker in self._crashes)

    def _drop_old(self, now: float) -> None:
        while self._crashes and self._crashes[0][0] < now - CRASH_WINDOW_SECONDS:
            self._crashes.popleft()


class RetryBudget:
    """The retries that the fleet may still make.

    As in the retry budgets of Finagle and Envoy, every success earns a share of a retry, and a reserve, which grows
    with `slots`, allows some retries before any success. `now` is in seconds.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._updated = 0.0

    def earn(self) -> None:
        """Add the share of one success."""
        self._spent = max(0.0, self._spent - RETRIES_PER_SUCCESS)

    def spend(self, now: float, *, slots: int) -> bool:
        """Take one retry; False if none is left."""
        self._spent = max(0.0, self._spent - (now - self._updated) / REFILL_SECONDS)
        self._updated = now
        if self._spent + 1 > max(MIN_RESERVE, RESERVE_PER_SLOT * slots):
            return False
        self._spent += 1
        return True
