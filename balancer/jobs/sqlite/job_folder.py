"""The folder of a SQLite job store: its database, its files, and the threads in which both are used."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from balancer.jobs.job import Job
from balancer.jobs.limits import JobLimits
from balancer.jobs.sqlite.database import JobDatabase
from balancer.jobs.sqlite.job_table import JobTable, update
from balancer.jobs.sqlite.result_files import ResultFiles
from balancer.jobs.sqlite.runner_lock import RunnerLock
from balancer.jobs.sqlite.segment_files import SegmentFiles
from balancer.jobs.store import JobStoreError
from balancer.runtime.thread_pool import ThreadPool

T = TypeVar("T")

THREADS = 4
"""They take turns at the database; results are written beside it."""


class JobFolder:
    """The parts of a store share it. `clock` gives Unix time. All methods but `run` block, and are for its threads."""

    def __init__(self, path: Path, clock: Callable[[], float], limits: JobLimits) -> None:
        self.path = path
        self.clock = clock
        self.limits = limits
        self.results = ResultFiles(path / "results")
        self.segments = SegmentFiles(path / "segments")
        self.runner_lock = RunnerLock(path)
        self.database = JobDatabase(path, self.runner_lock.acquire, self.results.size)
        self.table = JobTable(clock)
        self._pool = ThreadPool("jobs", THREADS)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is called in a thread. Raises JobStoreError."""
        try:
            return await self._pool.run(work)
        except (OSError, sqlite3.Error) as error:
            raise JobStoreError(f"the job store in {self.path} cannot be used: {error}") from error

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """See JobDatabase."""
        return self.database.transaction()

    def find(self, job_id: str) -> Job | None:
        """The job with this id; None if there is none."""
        with self.transaction() as database:
            return self.table.find(database, job_id)

    def select(self, where: str, *values: object) -> list[Job]:
        """The jobs of these rows."""
        with self.transaction() as database:
            return self.table.select(database, where, *values)

    def change(self, job_id: str, change: Callable[[Job], Job]) -> None:
        """Change a job, if it exists."""
        with self.transaction() as database:
            current = self.table.find(database, job_id)
            if current is not None:
                update(database, change(current))

    def delete(self, database: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        """Delete jobs that have ended, with their audio."""
        for job in jobs:
            self.results.delete(job)
        database.executemany("DELETE FROM jobs WHERE id = ?", [(job.id,) for job in jobs])

    def close_threads(self) -> None:
        """End the threads; does not wait for them."""
        self._pool.close()
