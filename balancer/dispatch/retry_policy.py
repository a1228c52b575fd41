"""How many utterances may run again: pure, one budget for the whole fleet.

Where workers die faster than work succeeds, running everything again would only bring the next ones down. As Finagle's
and Envoy's retry budgets do, each success earns a share of a retry, and a reserve lets a few through before that.
"""

from __future__ import annotations

RETRIES_A_SUCCESS = 0.25
LEAST_RESERVE = 20
RESERVE_A_SLOT = 4
"""Every worker of a host may die at once, and again while it starts, and nothing is lost."""
REFILL_SECONDS = 2.0
"""The reserve gains one retry in so many seconds, whatever succeeds."""


class RetryBudget:
    """Retries left. `now` is in seconds and never goes back; `slots` are those of the fleet at that time."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._seen = 0.0

    def earn(self) -> None:
        """An utterance succeeded."""
        self._spent = max(0.0, self._spent - RETRIES_A_SUCCESS)

    def spend(self, now: float, *, slots: int) -> bool:
        """Take one retry; False where none is left."""
        self._spent = max(0.0, self._spent - (now - self._seen) / REFILL_SECONDS)
        self._seen = now
        if self._spent + 1 > max(LEAST_RESERVE, RESERVE_A_SLOT * slots):
            return False
        self._spent += 1
        return True
