"""A bounded buffer between a log and its reader: a reader that stops reading costs lines, and holds up nobody.

A program that writes its log itself stands still once the pipe to its reader is full. Here a thread writes. What comes
while the buffer is full is dropped and counted, and a line among those that follow says how many.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_PENDING_BYTES = 4 * 2**20
"""Some seconds of a busy server's log."""


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own.

    At most `max_bytes` wait. `report` makes the line that tells of dropped ones from their number. A descriptor that
    does not block would not block for whoever shares it either, such as a shell: hence the thread.
    """

    def __init__(self, descriptor: int, report: Callable[[int], bytes], *, max_bytes: int = MAX_PENDING_BYTES) -> None:
        self.dropped = 0
        """Lines that were not written so far."""
        self._descriptor = descriptor
        self._report = report
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._unreported = 0
        self._writing = False
        self._changed = threading.Condition()
        threading.Thread(target=self._write_lines, name="log writer", daemon=True).start()

    def write(self, line: bytes) -> None:
        """Queue a line, which ends with a line feed, or drop it. Never blocks."""
        with self._changed:
            if self._bytes + len(line) > self._max_bytes:
                self._drop(1)
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until everything is written, for so long at most."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (self._lines or self._writing) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._unreported += lines

    def _write_lines(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._lines:
                    self._changed.wait()
                self._writing = True
                lines, unreported = list(self._lines), self._unreported
                self._lines.clear()
                self._bytes = self._unreported = 0
            if unreported:
                lines.append(self._report(unreported))
            if not self._write(b"".join(lines)):
                with self._changed:
                    self._drop(len(lines))

    def _write(self, lines: bytes) -> bool:
        data = memoryview(lines)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # the reader has gone, or the disk of a log file is full
            return False
        return True
