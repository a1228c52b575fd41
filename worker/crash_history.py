"""The crash history of a worker: a worker that crashes at every start backs off and says why.

The run directory holds, for each worker, the number of consecutive starts that never became ready, and the last log
lines. A worker runs without them: a full disk or a damaged file counts as an empty history.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

log = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 60.0
TAIL_LINES = 5
MAX_TAIL_CHARACTERS = 2000
LOG_BYTES = 65_536


@dataclass(frozen=True)
class Crashes:
    """Consecutive starts that never became ready, as the next start finds them."""

    starts: int = 0
    tail: str = ""
    """The last log lines of the last of these starts."""

    @property
    def wait(self) -> float:
        """Seconds to wait before the next start: none after a first crash, which may be chance."""
        return 0.0 if self.starts < 2 else min(MAX_WAIT_SECONDS, 2.0 ** (self.starts - 1))

    @property
    def reason(self) -> str:
        """The reason that operators read while the worker waits."""
        logged = f"; the last lines of its log: {self.tail}" if self.tail else "; it logged nothing"
        return f"crashed at each of its last {self.starts} starts, tries again after {self.wait:.0f} s{logged}"


NO_CRASHES = Crashes()


class CrashHistory:
    """The crash history of worker `index`, in files in `folder`."""

    def __init__(self, folder: Path, index: int) -> None:
        self._starts = folder / f"worker-{index}.starts"
        self._log = folder / f"worker-{index}.log"
        self._before = 0

    def read(self) -> Crashes:
        """Return the crashes before this start."""
        try:
            self._before = int(self._starts.read_text(encoding="ascii"))
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return Crashes(self._before)
        except (OSError, ValueError) as error:
            log.warning("the crash history of this worker cannot be read: %s", error)
            self._before = 0
            return Crashes()
        return Crashes(self._before, " | ".join(lines[-TAIL_LINES:])[-MAX_TAIL_CHARACTERS:])

    def begin(self) -> None:
        """Record that a start has begun: it counts as a crash unless `settle` or `end` follows."""
        self._write(self._before + 1)

    def settle(self) -> None:
        """Record that the worker became ready, or knows why it cannot."""
        self._before = 0
        try:
            self._starts.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the starts of this worker cannot be reset: %s", error)

    def end(self) -> None:
        """Record that the worker ends on request, which is no crash."""
        if self._before:
            self._write(self._before)
        else:
            self.settle()

    def _write(self, starts: int) -> None:
        try:
            self._starts.write_text(str(starts), encoding="ascii")
        except OSError as error:
            log.warning("the starts of this worker cannot be counted: %s", error)

    def logging(self) -> logging.Handler:
        """A log handler that keeps this process's last lines for the next start; it deletes those of the last start."""
        try:
            self._log.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the log of this worker's last start cannot be deleted: %s", error)
        tail = _Tail(self._log, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
        tail.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        return tail


class _Tail(RotatingFileHandler):
    """Keeps the last lines of the log, if the disk has room for them."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Ignore the error: the other handler has logged this line."""
