"""Ends a worker whose model hangs: its threads' stacks go to the log, and supervisord starts the next process.

The timer is faulthandler's, a thread that needs no interpreter lock: native code that never gives it back cannot hold
it off.
"""

from __future__ import annotations

import faulthandler
import time

MOST_OFTEN = 1.0
"""Seconds between two settings of the timer, for which a thread is ended and another started."""


class Watchdog:
    """Fires where `seconds` pass without progress; 0: never. For the model's thread alone."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause = min(MOST_OFTEN, seconds / 10)
        self._set_at: float | None = None

    def progressed(self) -> None:
        """Start the time anew: a token, a block or a piece of audio was made, or an utterance begun."""
        if not self._seconds:
            return
        now = time.monotonic()
        if self._set_at is None or now - self._set_at >= self._pause:
            faulthandler.dump_traceback_later(self._seconds, exit=True)
            self._set_at = now

    def rest(self) -> None:
        """Nothing is under way."""
        if self._set_at is not None:
            faulthandler.cancel_dump_traceback_later()
            self._set_at = None
