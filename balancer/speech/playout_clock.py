"""The clock of a listener who plays a stream as it comes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PlayoutClock:
    """Tells how long the listener has had nothing to play. Times are in seconds, of any clock."""

    gaps: int = 0
    """Number of gaps so far."""
    gap_seconds: float = 0.0
    """Length of all gaps so far."""
    _dry_at: float | None = None
    """The time at which the listener has played all that was sent; None: nothing has been."""

    def sent(self, seconds: float, now: float) -> float:
        """Count audio that is sent now; the length of the gap before it, 0 if there is none."""
        dry_at = now if self._dry_at is None else self._dry_at
        gap = max(0.0, now - dry_at)
        self._dry_at = max(now, dry_at) + seconds
        if gap:
            self.gaps += 1
            self.gap_seconds += gap
        return gap

    def ahead(self, now: float) -> float:
        """Seconds of audio that were sent and are not played."""
        return 0.0 if self._dry_at is None else max(0.0, self._dry_at - now)
