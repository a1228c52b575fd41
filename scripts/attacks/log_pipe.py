"""A named pipe for a server's output, and a reader that can be told to pause, as a pager or a log shipper does."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.1


class LogPipe:
    """The pipe at `path`; what is read goes to `file`."""

    def __init__(self, path: Path, file: Path) -> None:
        self.path = path
        self.file = file
        self.reading = threading.Event()
        """While it is not set, nobody reads."""
        self.reading.set()
        self._ended = threading.Event()
        # For writing, too, so that the pipe never ends and opening it does not wait for a writer.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._ended.set()
        self._thread.join()
        os.close(self._descriptor)

    def _read(self) -> None:
        with self.file.open("wb", buffering=0) as copy:
            while not self._ended.is_set():
                if not self.reading.wait(POLL_SECONDS):
                    continue
                if select.select([self._descriptor], [], [], POLL_SECONDS)[0]:
                    copy.write(os.read(self._descriptor, 2**16))


@contextmanager
def open_log_pipe(folder: Path) -> Iterator[LogPipe]:
    """Make a pipe in `folder`, which is read unless told otherwise."""
    path = folder / "output"
    os.mkfifo(path, 0o600)
    pipe = LogPipe(path, folder / "output.log")
    try:
        yield pipe
    finally:
        pipe.close()
