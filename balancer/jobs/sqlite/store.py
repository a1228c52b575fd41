"""Jobs in one SQLite file on this host, with a file for the audio of each.

Only one process at a time runs the jobs of a folder; other processes may add and read jobs meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from balancer.jobs.job import Job, JobState
from balancer.jobs.limits import NO_LIMIT, JobLimits, Usage
from balancer.jobs.sqlite.claims import SqliteClaims
from balancer.jobs.sqlite.job_folder import JobFolder
from balancer.jobs.sqlite.job_table import Row, columns_of, insert, marks, new_row, update, usage
from balancer.jobs.sqlite.outbox import SqliteOutbox
from balancer.jobs.sqlite.places import SqlitePlaces, next_turn, read_places
from balancer.jobs.sqlite.retention import SqliteRetention
from balancer.jobs.sqlite.runner import JobRunner
from balancer.jobs.sqlite.segments import SqliteSegments
from balancer.jobs.store import NOTHING_AHEAD, IdempotencyError, JobStoreError, QueuedAhead
from balancer.runtime.thread_pool import with_rests

ROWS_AT_A_TIME = 100
"""Rows that one statement adds. Each statement lets go of the interpreter, as `new_ids` explains."""
IDS_AT_A_TIME = 500
"""Ids in one query; SQLite limits their number."""
CLOSING_SECONDS = 5.0
"""Time that closing may take."""


class SqliteJobStore:
    """A JobStore in `folder`. `clock` gives Unix time."""

    max_result_bytes = 2**32 - 2**10
    """About the largest WAV file that can be."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time, limits: JobLimits | None = None) -> None:
        self._folder = JobFolder(folder, clock, limits or JobLimits())
        self._runner = JobRunner(self._folder)
        self.claims = SqliteClaims(self._folder, self._runner)
        self.places = SqlitePlaces(self._folder)
        self.segments = SqliteSegments(self._folder)
        self.outbox = SqliteOutbox(self._folder, self._runner)
        self.retention = SqliteRetention(self._folder)

    @property
    def unreadable(self) -> int:
        """See JobStore."""
        return self._folder.table.unreadable

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """See JobStore."""
        return await self._folder.run(lambda: self._add(jobs))

    async def get(self, job_id: str) -> Job | None:
        """See JobStore."""
        return await self._folder.run(lambda: self._folder.find(job_id))

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """See JobStore."""
        return await self._folder.run(lambda: self._look(job_ids))

    async def audio(self, job: Job) -> Path | None:
        """See JobStore."""
        file = self._folder.results.path(job)
        return file if await self._folder.run(file.exists) else None

    async def counts(self) -> dict[JobState, int]:
        """See JobStore."""

        def count() -> dict[JobState, int]:
            with self._folder.transaction() as database:
                found = dict(database.execute("SELECT name, value FROM totals"))
            return {state: found.get(state.value, 0) for state in JobState}

        return await self._folder.run(count)

    async def failed(self, limit: int) -> list[Job]:
        """See JobStore."""
        where = "WHERE state = 'failed' ORDER BY finished DESC LIMIT ?"
        return await self._folder.run(lambda: self._folder.select(where, limit))

    async def requeue(self, job_id: str) -> Job | None:
        """See JobStore."""

        def requeue() -> Job | None:
            with self._folder.transaction() as database:
                job = self._folder.table.find(database, job_id)
                if job is None or job.state is not JobState.FAILED:
                    return None
                job = job.requeued()
                update(database, job)
                return job

        return await self._folder.run(requeue)

    async def cancel(self, job_id: str) -> Job | None:
        """See JobStore."""

        def end() -> Job | None:
            with self._folder.transaction() as database:
                job = self._folder.table.find(database, job_id)
                if job is None or job.state.final:
                    return job
                job = job.cancelled(self._folder.clock())
                update(database, job)
            self._folder.segments.delete(job_id)
            return job

        return await self._folder.run(end)

    async def delete(self, job_id: str) -> Job | None:
        """See JobStore."""

        def delete() -> Job | None:
            with self._folder.transaction() as database:
                job = self._folder.table.find(database, job_id)
                if job is not None and job.state.final:
                    self._folder.delete(database, [job])
                return job

        return await self._folder.run(delete)

    async def aclose(self) -> None:
        """See JobStore."""

        def close() -> None:
            self._folder.database.close()
            self._runner.stop()

        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._folder.run(close)
        except TimeoutError as error:
            raise JobStoreError(f"the job store in {self._folder.path} does not answer") from error
        finally:
            self._folder.close_threads()

    def _add(self, jobs: Sequence[Job]) -> list[Job]:
        caller = jobs[0].caller_id
        columns = [columns_of(job) for job in with_rests(jobs)]
        with self._folder.transaction() as database:
            turn = next_turn(database, caller)
            added: list[Job] = []
            new, smallest = 0, NO_LIMIT
            for first in range(0, len(jobs), ROWS_AT_A_TIME):
                part = jobs[first : first + ROWS_AT_A_TIME]
                known = self._folder.table.find_earlier(database, part)
                rows: list[Row] = []
                for job, own_columns in zip(part, columns[first : first + ROWS_AT_A_TIME], strict=True):
                    earlier = known.get(job.idempotency_key)
                    if earlier is None:
                        rows.append(new_row(job, turn + new, own_columns))
                        new, smallest = new + 1, min(smallest, job.expected_size)
                        if job.idempotency_key is not None:
                            known[job.idempotency_key] = job
                    elif earlier.request_digest != job.request_digest:
                        raise IdempotencyError(job.idempotency_key)
                    added.append(earlier or job)
                insert(database, rows)
            used = usage(database, caller)  # the new jobs are counted in it already
            before = Usage(used.queued - new, used.audio_bytes, used.caller_queued - new, used.caller_audio_bytes)
            before.check_room(new, smallest, self._folder.limits)
        return added

    def _look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        wanted = list(job_ids)
        found: dict[str, tuple[Job, QueuedAhead]] = {}
        with self._folder.transaction() as database:
            for start in range(0, len(wanted), IDS_AT_A_TIME):
                ids = wanted[start : start + IDS_AT_A_TIME]
                where = f"WHERE id IN ({marks(ids)})"
                jobs = self._folder.table.select(database, where, *ids)
                queued = any(job.state is JobState.QUEUED for job in jobs)
                order = read_places(database, where, *ids) if queued else {}
                found |= {job.id: (job, order.get(job.id, NOTHING_AHEAD)) for job in jobs}
        return found
