"""Claims of the jobs of a folder.

Callers take turns: a new job gets the turn after its caller's last queued job, or after the turn that jobs are claimed
in now, and jobs are claimed by turn, and within a turn in their order of arrival.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass

from balancer.jobs.job import Job, JobError, JobState
from balancer.jobs.limits import NO_LIMIT
from balancer.jobs.sqlite.job_folder import JobFolder
from balancer.jobs.sqlite.job_table import restore, update, usage
from balancer.jobs.sqlite.runner import JobRunner
from balancer.jobs.store import LONG_CHARACTERS, MAX_DUE_SECONDS, JobResult

_MORE_SIZE = "MAX(1, MIN(MAX(expected_size, kept_size), :caller_size)) - kept_size"
"""Bytes that a queued job takes up while it runs, beyond those of its segments."""
_NEXT = (
    "SELECT jobs.id, turn FROM jobs CROSS JOIN callers USING (caller) "  # noqa: S608 - constants
    "WHERE state = 'queued' AND (due <= :now OR due > :max_due) "
    f"AND (concurrency IS NULL OR running < concurrency) AND callers.size + {_MORE_SIZE} <= :caller_size "
    f"AND (SELECT value FROM totals WHERE name = 'size') + {_MORE_SIZE} <= :size "
    "AND (characters <= :long OR characters <= :max_long AND caller NOT IN (SELECT value FROM json_each(:busy))) "
    "ORDER BY turn, number LIMIT 1"
)


class SqliteClaims:
    """See JobClaims."""

    def __init__(self, folder: JobFolder, runner: JobRunner) -> None:
        self._folder = folder
        self._runner = runner

    async def claim_next(self, without_long_of: Collection[str] | None = ()) -> Job | None:
        """See JobClaims."""
        return await self._folder.run(lambda: self._claim_next(without_long_of))

    async def finish(self, job: Job, result: JobResult) -> bool:
        """See JobClaims."""
        return await self._folder.run(lambda: self._finish(job, result))

    async def fail(self, job: Job, error: JobError) -> bool:
        """See JobClaims."""
        return await self._replace(job, lambda: job.failed(self._folder.clock(), error))

    async def retry_later(self, job: Job, error: JobError, due: float, *, counts: bool = True) -> bool:
        """See JobClaims."""
        return await self._replace(job, lambda: job.queued_for_retry(error, due, counts=counts))

    async def release(self, job: Job) -> None:
        """See JobClaims."""
        await self._replace(job, job.released)

    async def stop(self) -> None:
        """See JobClaims."""
        await self._folder.run(self._runner.stop)

    async def _replace(self, claimed: Job, change: Callable[[], Job]) -> bool:
        return await self._folder.run(lambda: replace_claimed(self._folder, claimed, change()))

    def _claim_next(self, without_long_of: Collection[str] | None) -> Job | None:
        if not self._runner.runs_jobs():
            return None
        limits = self._folder.limits
        size, caller_size = limits.enforced_audio_bytes
        with self._folder.transaction() as database:
            now = self._folder.clock()
            values = {
                "now": now,
                "max_due": now + MAX_DUE_SECONDS,
                "size": size,
                "caller_size": caller_size,
                "long": LONG_CHARACTERS,
                "max_long": 0 if without_long_of is None else NO_LIMIT,
                "busy": json.dumps(list(without_long_of or ())),
            }
            while True:
                row = database.execute(_NEXT, values).fetchone()
                if row is None:
                    return None
                job_id, turn = row
                job = self._folder.table.find(database, job_id)
                if job is None or job.state is not JobState.QUEUED:  # it was set aside, or its columns were wrong
                    if job is not None:
                        update(database, job)
                    continue
                job = job.claimed(now, limits.reserved(job.expected_size))
                update(database, job)
                database.execute("UPDATE totals SET value = MAX(value, ?) WHERE name = 'turn'", (turn,))
                return job

    def _finish(self, job: Job, result: JobResult) -> bool:
        folder = self._folder
        self._reserve(job, len(result.audio))
        folder.results.write(job, result.audio)
        done = job.done(folder.clock(), seconds=result.seconds, digest=result.digest, size=len(result.audio))
        if replace_claimed(folder, job, done):
            return True
        current = folder.find(job.id)
        if current is None or current.state is not JobState.DONE:
            folder.results.delete(job)
        return False

    def _reserve(self, claimed: Job, size: int) -> None:
        """Reserve room for the audio of a claimed job, where it is larger than expected. Raises StoreFullError."""
        with self._folder.transaction() as database:
            claim = read_claim(database, claimed)
            if claim is not None and claim.held and size > claim.counted:
                usage(database, claimed.caller_id).check_audio(size, self._folder.limits, claim.counted)
                update(database, claimed.reserving(size))


@dataclass(frozen=True)
class Claim:
    """The state of a claim, as the row of its job has it."""

    held: bool
    """Whether it holds."""
    running: bool
    """Whether the job runs, by this claim or another."""
    reserved: int
    """Bytes that are reserved for the job's audio."""
    kept_size: int
    """Bytes of its segments."""

    @property
    def counted(self) -> int:
        """Bytes that count as the job's audio."""
        return max(self.reserved, self.kept_size)


def read_claim(database: sqlite3.Connection, claimed: Job) -> Claim | None:
    """The claim of a claimed job; None if the job is missing."""
    row = database.execute(
        "SELECT state = 'running' AND attempts = ?, state = 'running', size, kept_size FROM jobs WHERE id = ?",
        (claimed.attempts, claimed.id),
    ).fetchone()
    return None if row is None else Claim(bool(row[0]), bool(row[1]), row[2], row[3])


def replace_claimed(
    folder: JobFolder, claimed: Job, job: Job, then: Callable[[sqlite3.Connection], None] = lambda _: None
) -> bool:
    """Store the changed `job`, and do `then` in one transaction; False if the claim no longer holds.

    A running job is never deleted, so one that is missing was lost with its database, and is written again.
    """
    with folder.transaction() as database:
        current = folder.table.find(database, claimed.id)
        if current is None:
            restore(database, job)
        elif current.state is not JobState.RUNNING or current.attempts != claimed.attempts:
            return False
        else:
            update(database, job)
            if not job.segmentation:
                database.execute("DELETE FROM segments WHERE job = ?", (job.id,))
        then(database)
    if job.state.final or not job.segmentation:
        folder.segments.delete(job.id)
    return True
