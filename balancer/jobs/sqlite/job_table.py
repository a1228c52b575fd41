"""The table of jobs: reads and writes of whole jobs within a transaction of the caller.

A row has the whole job as JSON, and the fields that queries use in columns of their own.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Sequence

from balancer.jobs.job import Job, KeptCounts, UnreadableJobError, read_job, stand_in
from balancer.jobs.limits import Usage

log = logging.getLogger(__name__)

_CHANGING = (
    "state, due, characters, attempts, caller, idempotency_key, finished, webhook_due, size, expected_size, content"
)
"""Columns that change, as `columns_of` gives them."""
_ADDED = "id, turn, concurrency, webhook, " + _CHANGING

# KeptCounts as JSON. A segment is playable if as many come before it as its number says. Few jobs have segments.
_KEPT = (
    "CASE WHEN EXISTS (SELECT 1 FROM segments WHERE job = jobs.id) THEN "
    "(SELECT json_array(COUNT(*), SUM(size), SUM(number = place), SUM(size * (number = place))) FROM "
    "(SELECT number, size, ROW_NUMBER() OVER (ORDER BY number) - 1 AS place FROM segments WHERE job = jobs.id)) "
    "ELSE '[]' END"
)

Row = tuple[object, ...]


class JobTable:
    """Jobs in their rows. `clock` gives Unix time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.unreadable = 0
        """Jobs that were set aside because they could not be read."""

    def find(self, database: sqlite3.Connection, job_id: str) -> Job | None:
        """The job with this id; None if there is none."""
        return next(iter(self.select(database, "WHERE id = ?", job_id)), None)

    def find_earlier(self, database: sqlite3.Connection, jobs: Sequence[Job]) -> dict[str | None, Job]:
        """The jobs of the same caller that have the idempotency keys of these, by key."""
        keys = [job.idempotency_key for job in jobs if job.idempotency_key is not None]
        if not keys:
            return {}
        where = f"WHERE caller = ? AND idempotency_key IN ({marks(keys)})"
        return {job.idempotency_key: job for job in self.select(database, where, jobs[0].caller_id, *keys)}

    def select(self, database: sqlite3.Connection, where: str, *values: object) -> list[Job]:
        """The jobs of these rows. Those that cannot be read are set aside: a failed job stands in for each."""
        columns = f"number, id, caller, attempts, idempotency_key, content, {_KEPT}"
        rows = database.execute(f"SELECT {columns} FROM jobs {where}", values).fetchall()  # noqa: S608 - constants of this package
        jobs = []
        for number, id_, caller, attempts, idempotency_key, content, kept in rows:
            try:
                job = read_job(id_, content, KeptCounts(*json.loads(kept)))
            except UnreadableJobError as error:
                job = stand_in(
                    str(id_),
                    str(caller),
                    self._clock(),
                    error,
                    attempts=attempts if isinstance(attempts, int) and attempts >= 0 else 0,
                    idempotency_key=idempotency_key if isinstance(idempotency_key, str) else None,
                )
                database.execute("UPDATE jobs SET id = ?, unreadable = content WHERE number = ?", (job.id, number))
                update(database, job)
                self.unreadable += 1
                log.error("job %s cannot be read, and has failed: %s", job.id, error)
            jobs.append(job)
        return jobs


def columns_of(job: Job) -> Row:
    """The columns of a job that change: the fields that queries use, and the whole job as JSON."""
    return (
        job.state.value,
        job.due,
        job.characters,
        job.attempts,
        job.caller_id,
        job.idempotency_key,
        job.finished,
        job.webhook_due,
        job.size,
        job.expected_size,
        job.to_json(),
    )


def new_row(job: Job, turn: int, columns: Row) -> Row:
    """The row of a job that is to be added, from its `columns_of`."""
    return (job.id, turn, job.concurrency, job.webhook, *columns)


def insert(database: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Add rows of `new_row`, in one statement."""
    if rows:
        every_row = ", ".join([f"({marks(rows[0])})"] * len(rows))
        values = [value for row in rows for value in row]
        database.execute(f"INSERT INTO jobs ({_ADDED}) VALUES {every_row}", values)  # noqa: S608 - constants


def restore(database: sqlite3.Connection, job: Job) -> None:
    """Write a job again that is missing in the database. It has the first turn of all."""
    row = new_row(job, 0, columns_of(job))
    database.execute(f"INSERT OR IGNORE INTO jobs ({_ADDED}) VALUES ({marks(row)})", row)  # noqa: S608 - constants
    log.warning("job %s was missing in the database, and was written again", job.id)


def update(database: sqlite3.Connection, job: Job) -> None:
    """Write a job that has changed."""
    changes = ", ".join(f"{name} = ?" for name in _CHANGING.split(", "))
    database.execute(f"UPDATE jobs SET {changes} WHERE id = ?", (*columns_of(job), job.id))  # noqa: S608 - constants


def marks(values: Sequence[object]) -> str:
    """The parameters of a statement that stand for these values."""
    return ", ".join("?" * len(values))


def usage(database: sqlite3.Connection, caller: str = "") -> Usage:
    """Queued jobs and bytes of audio: of the whole store, and of one caller."""
    totals = dict(database.execute("SELECT name, value FROM totals WHERE name IN ('queued', 'size')"))
    found = database.execute("SELECT queued, size FROM callers WHERE caller = ?", (caller,)).fetchone()
    return Usage(totals.get("queued", 0), totals["size"], *(found or (0, 0)))
