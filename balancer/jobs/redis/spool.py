"""A folder of this host with copies of audio that is in Redis, on its way to clients."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from balancer.jobs.job import Job
from balancer.jobs.store import JobStoreError
from balancer.runtime.thread_pool import ThreadPool

T = TypeVar("T")

MAX_AGE_SECONDS = 3600.0
"""Time that this host keeps the audio of a job after a client has fetched it."""
THREADS = 2


class Spool:
    """Copies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPool("job-files", THREADS)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work` on files, which is called in a thread. Raises its errors."""
        return await self._pool.run(work)

    def start(self, work: Callable[[], object]) -> None:
        """Call `work` on files in a thread, and wait for nothing."""
        self._pool.start(work)

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Raises JobStoreError for an OSError: `what` cannot be written."""
        try:
            yield
        except OSError as error:
            raise JobStoreError(f"{what} cannot be written to {self._folder}: {error}") from error

    def result(self, job: Job) -> Path:
        """The file of a job's audio."""
        return self._folder / f"{job.id}{job.suffix}"

    def segment(self, job: Job, number: int) -> Path:
        """The file of one of a job's segments."""
        return self._segments(job) / f"{number:06}"

    def drop_segments(self, job: Job) -> None:
        """Delete the copies of a job's segments; waits for nothing."""
        self.start(partial(shutil.rmtree, self._segments(job), ignore_errors=True))

    async def delete_old(self) -> None:
        """Delete the copies that are older than MAX_AGE_SECONDS."""
        await self.run(lambda: _delete_old(self._folder, time.time() - MAX_AGE_SECONDS))

    def close(self) -> None:
        """End the threads; does not wait for them."""
        self._pool.close()

    def _segments(self, job: Job) -> Path:
        return self._folder / f"{job.id}.segments"


def write(file: Path, content: bytes) -> None:
    """Write a file; its folder is made. Raises OSError."""
    _make_folder(file)
    file.write_bytes(content)


def append(file: Path, piece: bytes) -> None:
    """Write at the end of a file, which is made if it is missing. Raises OSError."""
    _make_folder(file)
    with file.open("ab") as output:
        output.write(piece)


def _make_folder(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)


def _delete_old(folder: Path, before: float) -> None:
    with suppress(FileNotFoundError):
        for entry in folder.iterdir():
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime >= before:
                    continue
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
