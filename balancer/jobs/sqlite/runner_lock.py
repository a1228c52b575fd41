"""The lock file of a folder of jobs: one process at a time runs them. The kernel unlocks it when the process dies."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

LOCK = "runner.lock"


class RunnerLock:
    """The lock in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / LOCK
        self._mutex = threading.Lock()
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Whether this process holds the lock; it takes it if no process does. Raises OSError.

        A lock on a file that was removed keeps nobody out, so the one that lies there now is taken instead.
        """
        with self._mutex:
            if self._fd is not None and self._is_current(self._fd):
                return True
            self._close()
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
            return True

    def release(self) -> None:
        """Let another process run the jobs."""
        with self._mutex:
            self._close()

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._file.stat())
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
