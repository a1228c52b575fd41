"""The webhooks of a folder's ended jobs that are still to be delivered."""

from __future__ import annotations

import sqlite3

from balancer.jobs.job import Job
from balancer.jobs.sqlite.job_folder import JobFolder
from balancer.jobs.sqlite.job_table import update
from balancer.jobs.sqlite.runner import JobRunner
from balancer.jobs.store import ANY_ROOM, MAX_WEBHOOK_DUE_SECONDS, DeliveryRoom

MAX_READ = 2000
"""Due webhooks of one caller that are looked through for receivers with room."""


class SqliteOutbox:
    """See WebhookOutbox. The process that runs the folder's jobs delivers their webhooks."""

    def __init__(self, folder: JobFolder, runner: JobRunner) -> None:
        self._folder = folder
        self._runner = runner

    async def due(self, now: float, room: DeliveryRoom = ANY_ROOM) -> list[Job]:
        """See WebhookOutbox."""
        return await self._folder.run(lambda: self._due(now, room) if self._runner.runs_jobs() else [])

    async def postpone(self, job: Job, *, due: float) -> None:
        """See WebhookOutbox."""
        await self._folder.run(lambda: self._folder.change(job.id, lambda current: current.with_webhook_due(due)))

    async def record_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """See WebhookOutbox."""

        def change(current: Job) -> Job:
            return current.after_webhook_attempt(due=due, error=error)

        await self._folder.run(lambda: self._folder.change(job.id, change))

    def _due(self, now: float, room: DeliveryRoom) -> list[Job]:
        due: list[Job] = []
        with self._folder.transaction() as database:
            callers = sorted(_callers(database), key=lambda caller: room.callers.get(caller, 0))
            for caller in callers:
                places = min(room.total - len(due), room.per_caller - room.callers.get(caller, 0))
                if places <= 0:
                    continue
                for id_ in _due_of(database, caller, now, room, places):
                    job = self._folder.table.find(database, id_)
                    if job is not None and job.webhook_due is None:
                        update(database, job)  # its columns were wrong
                    elif job is not None:
                        due.append(job)
        return due


def _due_of(database: sqlite3.Connection, caller: str, now: float, room: DeliveryRoom, places: int) -> list[str]:
    """Ids of up to `places` of a caller's jobs whose webhooks are due, and whose receivers have room."""
    ids: list[str] = []
    receivers = {url: count for (of, url), count in room.receivers.items() if of == caller}
    for id_, url in database.execute(
        "SELECT id, webhook FROM jobs WHERE caller = ? AND (webhook_due <= ? OR webhook_due > ?) "
        "ORDER BY webhook_due LIMIT ?",
        (caller, now, now + MAX_WEBHOOK_DUE_SECONDS, MAX_READ),
    ):
        if id_ in room.running or receivers.get(url, 0) >= room.per_receiver:
            continue
        receivers[url] = receivers.get(url, 0) + 1
        ids.append(id_)
        if len(ids) == places:
            break
    return ids


def _callers(database: sqlite3.Connection) -> list[str]:
    """The callers that have webhooks to be delivered. Each is one step in the index, however many it has."""
    first = "SELECT MIN(caller) FROM jobs WHERE webhook_due IS NOT NULL"
    found = database.execute(
        f"WITH RECURSIVE found(caller) AS ({first} UNION ALL "  # noqa: S608 - constants
        f"SELECT ({first} AND caller > found.caller) FROM found WHERE found.caller IS NOT NULL) "
        "SELECT caller FROM found WHERE caller IS NOT NULL"
    )
    return [caller for (caller,) in found]
