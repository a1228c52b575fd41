"""How long a stream's first sound is held back so that the stream then plays without a gap; pure.

A segment is heard behind all that comes before it, and has to be made by then. A host that makes one utterance slower
than it plays would leave the listener of an early first sound with nothing to play soon after; begun later, the same
audio plays in one go (the playout delay of RTP's receivers, which wait for late packets).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

RESERVE = 1.15
"""What is left to be made is taken to need so many times as long as expected: utterances of one length differ."""


@dataclass
class SegmentProgress:
    """How far a segment of a stream is made. Times are on one clock, in seconds."""

    seconds: float
    """Its length, as expected until it is finished."""
    begun: float | None = None
    """The time at which it was given to a worker, or queued for one; None: it was not yet."""
    made: float = 0.0
    """Seconds of audio at its beginning that are made."""
    finished: bool = False


@dataclass(frozen=True)
class StreamPace:
    """What the host makes of one stream at its present load."""

    slots: int
    """Segments at once, at least 1."""
    speed: float
    """Seconds of audio that a slot makes in a second."""


def earliest_start(segments: Sequence[SegmentProgress], pace: StreamPace, now: float, playback_speed: float) -> float:
    """The earliest time from `now` on at which a stream may begin to play so that it is expected to have no gap.

    `playback_speed` is the seconds of audio that are played in a second. Segments are begun in order, each in the slot
    that is free first. Pauses between segments are left out.
    """
    slots: list[float] = []
    """The times at which the slots in use are free."""
    start, heard = now, 0.0
    for segment in segments:
        if not segment.finished:
            if len(slots) < pace.slots:
                since = now if segment.begun is None else segment.begun
            else:
                since = heapq.heappop(slots)
            left = max(0.0, segment.seconds / pace.speed - max(0.0, now - since))
            made_at = max(now, since) + RESERVE * left
            heapq.heappush(slots, made_at)
            start = max(start, made_at - (heard + segment.made) / playback_speed)
        heard += segment.seconds
    return start
