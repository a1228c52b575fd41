"""Ends a worker whose model hangs: the stacks of its threads go to the log, and supervisord starts the next process.

The timer is faulthandler's: its thread does not need the GIL, so native code that never releases the GIL cannot stop
it.
"""

from __future__ import annotations

import faulthandler
import time

MIN_RESET_SECONDS = 1.0
"""The timer is reset at most this often: each reset ends a thread and starts another."""


class ModelWatchdog:
    """Ends the process after `seconds` without progress; 0: never. Only the model's thread may call it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause = min(MIN_RESET_SECONDS, seconds / 10)
        self._set_at: float | None = None

    def progressed(self) -> None:
        """Reset the timer: a token, a block or a chunk of audio was made, or an utterance began."""
        if not self._seconds:
            return
        now = time.monotonic()
        if self._set_at is None or now - self._set_at >= self._pause:
            faulthandler.dump_traceback_later(self._seconds, exit=True)
            self._set_at = now

    def rest(self) -> None:
        """Stop the timer: no utterance is in flight."""
        if self._set_at is not None:
            faulthandler.cancel_dump_traceback_later()
            self._set_at = None
