"""Chooses a batched engine's next step: of decoding, or of S3Gen for one utterance. Pure but for the clock.

Every utterance has a time at which it is due. A listener's is the one at which he has nothing to play, so that
utterances of which nothing is heard yet are due since their arrival, and come first. A whole answer, which nobody hears
before its end, is due WHOLE_ANSWER_SECONDS after its tokens are complete: what arrives later cannot delay it any more.

S3Gen works on the utterance that is due first; of those due at once, on the one that was queued first. It goes before
decoding, unless an utterance that is being decoded is due before all that wait for S3Gen. Without listeners, whole
answers are made in the order in which their tokens were complete.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.contract import Utterance

WHOLE_ANSWER_SECONDS = 5.0
"""Seconds that a whole answer waits for listeners, at most. It is longer than S3Gen takes for most utterances."""


@dataclass(eq=False)
class Work:
    """The work that is left for one utterance."""

    listened: bool
    """Whether somebody hears the audio while it is made."""
    due: float
    """Time of the clock; infinite for a whole answer that does not wait for S3Gen."""


class WorkOrder:
    """The utterances of one engine that are being decoded, and those that S3Gen makes audio of."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._decoding: list[Work] = []
        self.s3gen_queue: list[Work] = []
        """The utterances that wait for S3Gen or that it works on, in the order in which they were queued."""

    def arrive(self, utterance: Utterance) -> Work:
        """The work for an utterance that arrives now."""
        if utterance.playout_deadline is None:
            return Work(listened=False, due=math.inf)
        return Work(listened=True, due=self._clock() + utterance.playout_deadline)

    def begin_decode(self, work: Work) -> None:
        """Note that tokens are to be drawn for an utterance."""
        self._decoding.append(work)

    def end_decode(self, work: Work) -> None:
        """Note that no more tokens are drawn for an utterance."""
        self._decoding.remove(work)

    def begin_s3gen(self, work: Work) -> None:
        """Queue an utterance for S3Gen."""
        if not work.listened:
            work.due = self._clock() + WHOLE_ANSWER_SECONDS
        self.s3gen_queue.append(work)

    def end_s3gen(self, work: Work) -> None:
        """Take an utterance out of S3Gen's queue."""
        self.s3gen_queue.remove(work)
        if not work.listened:
            work.due = math.inf

    def sent(self, work: Work, seconds: float) -> None:
        """Note that a listener has been sent so much more audio to play."""
        work.due = max(work.due, self._clock()) + seconds

    @property
    def decode_is_next(self) -> bool:
        """Whether tokens are decoded next."""
        if not self.s3gen_queue:
            return True
        return min((work.due for work in self._decoding), default=math.inf) < self._first_of_s3gen.due

    def s3gen_is_next(self, work: Work) -> bool:
        """Whether S3Gen's next step is made, and for this utterance, which is in the queue."""
        return self._first_of_s3gen is work and not self.decode_is_next

    @property
    def _first_of_s3gen(self) -> Work:
        return min(self.s3gen_queue, key=lambda work: work.due)
