"""The places of queued jobs of a folder, in the order in which they are claimed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from balancer.jobs.job import Job
from balancer.jobs.sqlite.job_folder import JobFolder
from balancer.jobs.store import NOTHING_AHEAD, QueuedAhead

MAX_COUNTED = 200
"""Queued jobs that are counted at each look at a job's place. A longer queue is read once for many looks."""
ORDER_SECONDS = 1.0
"""The largest age of a reading of the queue's order."""


class SqlitePlaces:
    """See QueuePlaces."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._order: dict[str, QueuedAhead] = {}
        self._order_read = -ORDER_SECONDS

    async def ahead(self, job: Job) -> QueuedAhead:
        """See QueuePlaces. Of more than MAX_COUNTED queued jobs it may be ORDER_SECONDS old."""
        return await self._folder.run(lambda: self._ahead(job.id))

    async def ahead_all(self, jobs: Sequence[Job]) -> list[QueuedAhead]:
        """See QueuePlaces."""

        def count() -> list[QueuedAhead]:
            with self._folder.transaction() as database:
                order = _read_order(database)
            return [order.get(job.id, NOTHING_AHEAD) for job in jobs]

        return [await self.ahead(jobs[0])] if len(jobs) == 1 else await self._folder.run(count)

    def _ahead(self, job_id: str) -> QueuedAhead:
        fresh = time.monotonic() - self._order_read < ORDER_SECONDS
        if fresh and job_id in self._order:
            return self._order[job_id]
        with self._folder.transaction() as database:
            (queued,) = database.execute("SELECT COALESCE(SUM(value), 0) FROM totals WHERE name = 'queued'").fetchone()
            if queued > MAX_COUNTED and not fresh:
                self._order = _read_order(database)
                self._order_read = time.monotonic()
                if job_id in self._order:
                    return self._order[job_id]
            found = database.execute(
                "SELECT COUNT(*), COALESCE(SUM(characters), 0) FROM jobs WHERE state = 'queued' "
                "AND (turn, number) < (SELECT turn, number FROM jobs WHERE id = ?)",
                (job_id,),
            ).fetchone()
            return QueuedAhead(*found)


def _read_order(database: sqlite3.Connection) -> dict[str, QueuedAhead]:
    """The jobs ahead of every queued job, by its id."""
    order, characters = {}, 0
    rows = database.execute("SELECT id, characters FROM jobs WHERE state = 'queued' ORDER BY turn, number")
    for position, (id_, own) in enumerate(rows):
        order[id_] = QueuedAhead(position, characters)
        characters += own
    return order


def read_places(database: sqlite3.Connection, where: str, *values: object) -> dict[str, QueuedAhead]:
    """The jobs ahead of the queued jobs of these rows. SQLite counts, so that other threads run meanwhile."""
    rows = database.execute(
        "SELECT id, ahead, total - characters FROM jobs JOIN (SELECT number, ROW_NUMBER() OVER queue - 1 AS ahead, "  # noqa: S608 - constants
        "SUM(characters) OVER queue AS total FROM jobs WHERE state = 'queued' "
        f"WINDOW queue AS (ORDER BY turn, number ROWS UNBOUNDED PRECEDING)) USING (number) {where}",
        values,
    )
    return {id_: QueuedAhead(ahead, characters) for id_, ahead, characters in rows}


def next_turn(database: sqlite3.Connection, caller: str) -> int:
    """The turn of a caller's next job."""
    (turn,) = database.execute(
        "SELECT MAX((SELECT value FROM totals WHERE name = 'turn'), "
        "COALESCE((SELECT MAX(turn) FROM jobs WHERE caller = ? AND state = 'queued'), 0))",
        (caller,),
    ).fetchone()
    return int(turn) + 1
