"""A lock that the processes of a host share: each does what the others find done afterwards."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import BinaryIO

POLL_INTERVAL_SECONDS = 0.05


@contextmanager
def locked(file: Path, max_wait: float = inf) -> Iterator[OSError | None]:
    """A block that one process at a time is in; gives why not, if there can be no lock.

    Nor is there one where another process has it for longer than `max_wait` seconds: TimeoutError.
    """
    failure = None
    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _acquire(stack.enter_context(file.open("wb")), max_wait)
        except OSError as error:
            failure = error
        yield failure


def _acquire(lock: BinaryIO, max_wait: float) -> None:
    deadline = time.monotonic() + max_wait
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"another process has had {lock.name} for {max_wait:g} s") from error
            time.sleep(POLL_INTERVAL_SECONDS)
        else:
            return
