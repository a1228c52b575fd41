"""The weight of a host behind a load balancer, by its free slots. Pure."""

from __future__ import annotations

from math import ceil

SMOOTHING = 0.1
"""Weight of the newest observation in the average."""
BUSY_SHARE = 0.5
"""Weight of a host without a free slot, as a share of that of an idle one."""


class HostWeight:
    """Follows the free slots of a host, observed at regular times.

    The load balancer counts the requests that it has sent itself (HAProxy's `leastconn`), at every request; the weight
    is to tell it what it cannot see: slots taken by jobs or by clients of others, workers that are missing. Read once a
    second it is out of date, so it is an average, and changes by no more than BUSY_SHARE: weights of the free slots at
    the moment make the hosts overload in turns (simulated: the p95 of short texts at 70 % load is 2.5 to 5 times that
    of equal weights).
    """

    def __init__(self) -> None:
        self._free_share = 1.0

    def observe(self, *, free: int, slots: int, all_slots: int) -> int:
        """The weight in percent, at least 1: `free` of `slots`, which is what is left of `all_slots`."""
        self._free_share += SMOOTHING * ((free / slots if slots else 0.0) - self._free_share)
        share = BUSY_SHARE + (1 - BUSY_SHARE) * self._free_share
        return max(1, ceil(100 * share * slots / max(1, all_slots)))
