"""The one process that runs the jobs of a folder: the holder of its lock file.

A job that is running when the lock is first acquired has lost its process, and is queued again. Other processes may add
and read jobs meanwhile.
"""

from __future__ import annotations

import logging
import threading

from balancer.jobs.sqlite.job_folder import JobFolder
from balancer.jobs.sqlite.job_table import update

log = logging.getLogger(__name__)


class JobRunner:
    """Has this process run the jobs of `folder`. Its methods block; they raise OSError, sqlite3.Error."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._recovered = False

    def runs_jobs(self) -> bool:
        """Whether this process runs the jobs; it takes the lock if no process holds it."""
        with self._mutex:
            if not self._folder.runner_lock.acquire():
                return False
            if not self._recovered:
                self._recover()
                self._recovered = True
            return True

    def stop(self) -> None:
        """Let another process run the jobs."""
        self._folder.runner_lock.release()
        self._recovered = False

    def _recover(self) -> None:
        """Queue the running jobs again: their process has died before it stored a result.

        Segments that a process has left, and that no job goes on from, are deleted.
        """
        with self._folder.transaction() as database:
            running = self._folder.table.select(database, "WHERE state = 'running'")
            orphans = [job for job in running if not job.state.final]
            for job in orphans:
                update(database, job.orphaned())
            unfinished = {id_ for (id_,) in database.execute("SELECT id FROM jobs WHERE state = 'queued'")}
        if deleted := self._folder.segments.delete_others(unfinished):
            log.warning("deleted the segments of %d jobs that have ended", deleted)
        if orphans:
            log.warning("%d jobs are queued again: the process that ran them has died", len(orphans))
