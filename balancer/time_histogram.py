"""Counts durations in buckets that every histogram has in common, so that their counts can be added and subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

SHORTEST_SECONDS = 0.0001
"""Durations up to this one are in the first bucket."""
BUCKETS_PER_OCTAVE = 4
"""Each bucket ends at 2**(1/4) times the end of the one before: a percentile is wrong by a fifth at most."""
BUCKETS = 1 + 24 * BUCKETS_PER_OCTAVE
"""The last one ends at 1678 s, and has what is longer, too."""

_ENDS = tuple(SHORTEST_SECONDS * 2 ** (index / BUCKETS_PER_OCTAVE) for index in range(BUCKETS))


class TimeHistogram:
    """`counts` has the number of durations in each bucket since the start."""

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[_bucket_of(seconds)] += 1


def percentile(counts: Sequence[int], share: float) -> float | None:
    """The duration that `share` of those counted do not exceed, in seconds; None if none is counted.

    Within a bucket, durations are taken to lie evenly.
    """
    below, rank = 0, share * sum(counts)
    for index, count in enumerate(counts):
        if count and below + count >= rank:
            start = _ENDS[index - 1] if index else 0.0
            return start + (_ENDS[index] - start) * max(0.0, rank - below) / count
        below += count
    return None


def _bucket_of(seconds: float) -> int:
    if seconds <= SHORTEST_SECONDS:
        return 0
    # Rounded up: a bucket has its end, but not its start.
    return min(BUCKETS - 1, -int(-BUCKETS_PER_OCTAVE * log2(seconds / SHORTEST_SECONDS) // 1))
