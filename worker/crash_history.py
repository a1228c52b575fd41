"""What became of a worker's last starts, so that one that crashes at each of them slows down and tells why.

Kept in the run directory, for each worker the number of starts in a row that never got ready, and its last log lines.
Both are a help, not a need: a full disk or a damaged file counts as no past.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0
TAIL_LINES = 5
LONGEST_TAIL = 2000
LOG_BYTES = 65_536


@dataclass(frozen=True)
class Crashes:
    """Starts in a row that never got ready, as the next one finds them."""

    starts: int = 0
    tail: str = ""
    """The last lines that the last of them logged."""

    @property
    def wait(self) -> float:
        """Seconds to wait before the next: none after a first crash, which may be chance."""
        return 0.0 if self.starts < 2 else min(LONGEST_WAIT, 2.0 ** (self.starts - 1))

    @property
    def reason(self) -> str:
        """What operators read while the worker waits."""
        said = f"; the last lines of its log: {self.tail}" if self.tail else "; it logged nothing"
        return f"crashed at each of its last {self.starts} starts, tries again after {self.wait:.0f} s{said}"


NO_CRASHES = Crashes()


class Past:
    """The past of worker `index`, in `folder`."""

    def __init__(self, folder: Path, index: int) -> None:
        self._starts = folder / f"worker-{index}.starts"
        self._log = folder / f"worker-{index}.log"
        self._before = 0

    def read(self) -> Crashes:
        """What came before this start."""
        try:
            self._before = int(self._starts.read_text(encoding="ascii"))
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return Crashes(self._before)
        except (OSError, ValueError) as error:
            log.warning("nothing is known of this worker's last starts: %s", error)
            self._before = 0
            return Crashes()
        return Crashes(self._before, " | ".join(lines[-TAIL_LINES:])[-LONGEST_TAIL:])

    def begin(self) -> None:
        """The start is under way: should nothing else be heard of it, it crashed."""
        self._write(self._before + 1)

    def settle(self) -> None:
        """It got ready, or knows why it cannot."""
        self._before = 0
        try:
            self._starts.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the starts of this worker cannot be reset: %s", error)

    def end(self) -> None:
        """It ends because it was asked to: that is no crash."""
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
        """A handler that keeps the last lines of this process's log for the next, and forgets those before it."""
        try:
            self._log.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the log of this worker's last start stays: %s", error)
        tail = _Tail(self._log, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
        tail.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        return tail


class _Tail(RotatingFileHandler):
    """Keeps a little of the log, where there is room for it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Nothing: whoever reads the log has this line from the other handler."""
