"""Jobs in one SQLite file on this host, with a file for the audio of each.

Only one process at a time runs the jobs of a folder: the holder of a lock file. A job that is running when the lock is
first acquired has therefore lost its process, and is queued again. Other processes may add and read jobs meanwhile.

Callers take turns: a new job gets the turn after its caller's last queued job, or after the turn that jobs are claimed
in now, and jobs are claimed by turn, and within a turn in their order of arrival.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job, JobError, JobState, KeptCounts, UnreadableJobError, read_job, stand_in
from balancer.jobs.result_files import ResultFiles
from balancer.jobs.runner_lock import RunnerLock
from balancer.jobs.segment_files import SegmentFiles
from balancer.jobs.sqlite_database import JobDatabase
from balancer.jobs.store import (
    ANY_ROOM,
    LONG_CHARACTERS,
    MAX_DUE_SECONDS,
    MAX_WEBHOOK_DUE_SECONDS,
    DeliveryRoom,
    IdempotencyError,
    JobLimits,
    JobResult,
    JobStoreError,
    QueuedAhead,
    Usage,
)
from balancer.runtime.thread_pool import ThreadPool, with_rests

log = logging.getLogger(__name__)

MAX_COUNTED = 200
"""Queued jobs that are counted at each look at a job's place. A longer queue is read once for many looks."""
ROWS_AT_A_TIME = 100
"""Rows that one statement adds. Each statement lets go of the interpreter, as `new_ids` explains."""
ORDER_SECONDS = 1.0
"""How old a reading of the queue's order may be."""
MAX_WEBHOOKS_READ = 2000
"""Due webhooks of one caller that are looked through for receivers with room."""
PURGED_AT_ONCE = 1000
IDS_AT_A_TIME = 500
"""Ids in one query; SQLite limits their number."""
THREADS = 4
"""They take turns at the database; results are written beside it."""
CLOSING_SECONDS = 5.0
"""Time that closing may take."""

_MAX = 2**53

T = TypeVar("T")


class SqliteJobStore:
    """A JobStore in `folder`. `clock` gives Unix time."""

    max_result_bytes = 2**32 - 2**10
    """About the largest WAV file that can be."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time, limits: JobLimits | None = None) -> None:
        self._folder = folder
        self._clock = clock
        self._limits = limits or JobLimits()
        self._results = ResultFiles(folder / "results")
        self._segments = SegmentFiles(folder / "segments")
        self._runner_lock = RunnerLock(folder)
        self._database = JobDatabase(folder, self._runner_lock.acquire, self._results.size)
        self._recovery = threading.Lock()
        self._recovered = False
        self.unreadable = 0
        self._order: dict[str, QueuedAhead] = {}
        self._order_read = -ORDER_SECONDS
        self._pool = ThreadPool("jobs", THREADS)

    # The methods of JobStore.

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """See JobStore."""
        return await self._in_thread(lambda: self._add(jobs))

    async def get(self, job_id: str) -> Job | None:
        """See JobStore."""

        def find() -> Job | None:
            with self._database.transaction() as database:
                return self._find(database, job_id)

        return await self._in_thread(find)

    async def ahead(self, job: Job) -> QueuedAhead:
        """See JobStore. Of more than MAX_COUNTED queued jobs it may be ORDER_SECONDS old."""
        return await self._in_thread(lambda: self._ahead(job.id))

    async def ahead_all(self, jobs: Sequence[Job]) -> list[QueuedAhead]:
        """See JobStore."""

        def count() -> list[QueuedAhead]:
            with self._database.transaction() as database:
                order = self._read_order(database)
            return [order.get(job.id, QueuedAhead(0, 0)) for job in jobs]

        return [await self.ahead(jobs[0])] if len(jobs) == 1 else await self._in_thread(count)

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """See JobStore."""
        return await self._in_thread(lambda: self._look(job_ids))

    async def claim(self, without_long_of: Collection[str] | None = ()) -> Job | None:
        """See JobStore."""
        return await self._in_thread(lambda: self._claim(without_long_of))

    async def begin_segments(self, job: Job, plan: str, total: int) -> tuple[Job, Collection[int]] | None:
        """See JobStore. What is kept are the files: the rows that count them are made anew."""

        def begin() -> tuple[Job, Collection[int]] | None:
            kept = self._segments.begin(job, plan)
            begun = job.with_plan(plan, total, len(kept))
            rows = [(job.id, number, size) for number, size in kept.items()]

            def count(database: sqlite3.Connection) -> None:
                database.execute("DELETE FROM segments WHERE job = ?", (job.id,))
                database.executemany("INSERT INTO segments VALUES (?, ?, ?)", rows)

            return (begun, kept.keys()) if self._replace(job, begun, count) else None

        return await self._in_thread(begin)

    async def keep_segment(self, job: Job, number: int, audio: AudioBuffer) -> bool:
        """See JobStore. It is counted before it is written; the next run counts what was written."""

        def keep() -> bool:
            if not self._count_segment(job, number, len(audio)):
                return False
            self._segments.write(job, number, audio)
            with self._database.transaction() as database:
                claim = _read_claim(database, job)
                counted = database.execute("SELECT 1 FROM segments WHERE job = ? LIMIT 1", (job.id,)).fetchone()
            if claim is None or claim.held:
                return True
            if not claim.running and counted is None:  # the job has ended meanwhile, or is to be begun anew
                self._segments.delete(job.id)
            return False

        return await self._in_thread(keep)

    async def segment(self, job: Job, number: int) -> bytes | None:
        """See JobStore. One that was counted a moment ago may still have to be written."""
        return await self._in_thread(lambda: self._segments.read(job, number))

    async def segment_files(self, job: Job) -> Sequence[Path]:
        """See JobStore."""
        return await self._in_thread(lambda: self._segments.files(job))

    async def finish(self, job: Job, result: JobResult) -> bool:
        """See JobStore."""

        def end() -> bool:
            self._reserve(job, len(result.audio))
            self._results.write(job, result.audio)
            done = job.done(self._clock(), seconds=result.seconds, digest=result.digest, size=len(result.audio))
            if self._replace(job, done):
                return True
            with self._database.transaction() as database:
                current = self._find(database, job.id)
            if current is None or current.state is not JobState.DONE:
                self._results.delete(job)
            return False

        return await self._in_thread(end)

    async def fail(self, job: Job, error: JobError) -> bool:
        """See JobStore."""
        return await self._in_thread(lambda: self._replace(job, job.failed(self._clock(), error)))

    async def retry_later(self, job: Job, error: JobError, due: float, *, counts: bool = True) -> bool:
        """See JobStore."""
        return await self._in_thread(lambda: self._replace(job, job.queued_for_retry(error, due, counts=counts)))

    async def release(self, job: Job) -> None:
        """See JobStore."""
        await self._in_thread(lambda: self._replace(job, job.released()))

    async def cancel(self, job_id: str) -> Job | None:
        """See JobStore."""

        def end() -> Job | None:
            with self._database.transaction() as database:
                job = self._find(database, job_id)
                if job is None or job.state.final:
                    return job
                job = job.cancelled(self._clock())
                _update(database, job)
            self._segments.delete(job_id)
            return job

        return await self._in_thread(end)

    async def delete(self, job_id: str) -> Job | None:
        """See JobStore."""

        def delete() -> Job | None:
            with self._database.transaction() as database:
                job = self._find(database, job_id)
                if job is not None and job.state.final:
                    self._delete(database, [job])
                return job

        return await self._in_thread(delete)

    async def audio(self, job: Job) -> Path | None:
        """See JobStore."""
        file = self._results.path(job)
        return file if await self._in_thread(file.exists) else None

    async def counts(self) -> dict[JobState, int]:
        """See JobStore."""

        def count() -> dict[JobState, int]:
            with self._database.transaction() as database:
                found = dict(database.execute("SELECT name, value FROM totals"))
            return {state: found.get(state.value, 0) for state in JobState}

        return await self._in_thread(count)

    async def audio_bytes(self) -> int:
        """See JobStore."""

        def usage() -> int:
            with self._database.transaction() as database:
                return self._usage(database, "").audio_bytes

        return await self._in_thread(usage)

    async def failed(self, limit: int) -> list[Job]:
        """See JobStore."""
        return await self._in_thread(
            lambda: self._select("WHERE state = 'failed' ORDER BY finished DESC LIMIT ?", limit)
        )

    async def requeue(self, job_id: str) -> Job | None:
        """See JobStore."""

        def requeue() -> Job | None:
            with self._database.transaction() as database:
                job = self._find(database, job_id)
                if job is None or job.state is not JobState.FAILED:
                    return None
                job = job.requeued()
                _update(database, job)
                return job

        return await self._in_thread(requeue)

    async def webhooks_due(self, now: float, room: DeliveryRoom = ANY_ROOM) -> list[Job]:
        """See JobStore."""
        return await self._in_thread(lambda: self._webhooks_due(now, room) if self._runs_jobs() else [])

    async def postpone_webhook(self, job: Job, *, due: float) -> None:
        """See JobStore."""
        await self._change(job, lambda current: current.with_webhook_due(due))

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """See JobStore."""
        await self._change(job, lambda current: current.after_webhook_attempt(due=due, error=error))

    async def purge(self, before: float) -> int:
        """See JobStore."""

        def delete() -> int:
            with self._database.transaction() as database:
                old = self._jobs(database, "WHERE finished < ? AND webhook_due IS NULL LIMIT ?", before, PURGED_AT_ONCE)
                self._delete(database, old)
                return len(old)

        return await self._in_thread(delete)

    async def evict(self) -> int:
        """See JobStore. Of a caller above its share the oldest of its own; jobs with webhooks to deliver come last."""

        def delete() -> int:
            limits, deleted = self._limits, 0
            with self._database.transaction() as database:
                above = database.execute("SELECT caller FROM callers WHERE size > ?", (limits.caller_audio_bytes,))
                for (caller,) in above.fetchall():
                    while self._usage(database, caller).caller_audio_bytes > limits.caller_audio_bytes:
                        if not self._delete_oldest(database, "caller = ? AND", caller):
                            break
                        deleted += 1
                while self._usage(database, "").audio_bytes > limits.audio_bytes:
                    if not self._delete_oldest(database, ""):
                        break
                    deleted += 1
            return deleted

        return await self._in_thread(delete) if self._limits.evicts else 0

    async def stop_claiming(self) -> None:
        """See JobStore."""
        await self._in_thread(self._release)

    def _release(self) -> None:
        self._runner_lock.release()
        self._recovered = False

    async def aclose(self) -> None:
        """See JobStore."""

        def close() -> None:
            self._database.close()
            self._release()

        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._in_thread(close)
        except TimeoutError as error:
            raise JobStoreError(f"the job store in {self._folder} does not answer") from error
        finally:
            self._pool.close()

    # Helpers, which block; _in_thread runs them.

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with self._translated():
            return await self._pool.run(work)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise JobStoreError(f"the job store in {self._folder} cannot be used: {error}") from error

    def _add(self, jobs: Sequence[Job]) -> list[Job]:
        caller = jobs[0].caller_id
        changing = [_changing(job) for job in with_rests(jobs)]
        with self._database.transaction() as database:
            turn = _next_turn(database, caller)
            added: list[Job] = []
            new, smallest = 0, _MAX
            for first in range(0, len(jobs), ROWS_AT_A_TIME):
                part = jobs[first : first + ROWS_AT_A_TIME]
                known = self._find_earlier(database, part)
                rows: list[tuple[object, ...]] = []
                for job, columns in zip(part, changing[first : first + ROWS_AT_A_TIME], strict=True):
                    earlier = known.get(job.idempotency_key)
                    if earlier is None:
                        rows.append((job.id, turn + new, job.concurrency, job.webhook, *columns))
                        new, smallest = new + 1, min(smallest, job.expected_size)
                        if job.idempotency_key is not None:
                            known[job.idempotency_key] = job
                    elif earlier.request_digest != job.request_digest:
                        raise IdempotencyError(job.idempotency_key)
                    added.append(earlier or job)
                _insert(database, rows)
            used = self._usage(database, caller)  # the new jobs are counted in it already
            before = Usage(used.queued - new, used.audio_bytes, used.caller_queued - new, used.caller_audio_bytes)
            before.check_room(new, smallest, self._limits)
        return added

    def _usage(self, database: sqlite3.Connection, caller: str) -> Usage:
        totals = dict(database.execute("SELECT name, value FROM totals WHERE name IN ('queued', 'size')"))
        found = database.execute("SELECT queued, size FROM callers WHERE caller = ?", (caller,)).fetchone()
        return Usage(totals.get("queued", 0), totals["size"], *(found or (0, 0)))

    def _ahead(self, job_id: str) -> QueuedAhead:
        fresh = time.monotonic() - self._order_read < ORDER_SECONDS
        if fresh and job_id in self._order:
            return self._order[job_id]
        with self._database.transaction() as database:
            (queued,) = database.execute("SELECT COALESCE(SUM(value), 0) FROM totals WHERE name = 'queued'").fetchone()
            if queued > MAX_COUNTED and not fresh:
                self._order = self._read_order(database)
                self._order_read = time.monotonic()
                if job_id in self._order:
                    return self._order[job_id]
            found = database.execute(
                "SELECT COUNT(*), COALESCE(SUM(characters), 0) FROM jobs WHERE state = 'queued' "
                "AND (turn, number) < (SELECT turn, number FROM jobs WHERE id = ?)",
                (job_id,),
            ).fetchone()
            return QueuedAhead(*found)

    def _read_order(self, database: sqlite3.Connection) -> dict[str, QueuedAhead]:
        """What is ahead of every queued job."""
        order, characters = {}, 0
        rows = database.execute("SELECT id, characters FROM jobs WHERE state = 'queued' ORDER BY turn, number")
        for position, (id_, own) in enumerate(rows):
            order[id_] = QueuedAhead(position, characters)
            characters += own
        return order

    def _read_places(self, database: sqlite3.Connection, where: str, *values: object) -> dict[str, QueuedAhead]:
        """What is ahead of the queued jobs of these rows. SQLite counts, so that other threads run meanwhile."""
        rows = database.execute(
            "SELECT id, ahead, total - characters FROM jobs JOIN (SELECT number, ROW_NUMBER() OVER line - 1 AS ahead, "  # noqa: S608 - constants
            "SUM(characters) OVER line AS total FROM jobs WHERE state = 'queued' "
            f"WINDOW line AS (ORDER BY turn, number ROWS UNBOUNDED PRECEDING)) USING (number) {where}",
            values,
        )
        return {id_: QueuedAhead(ahead, characters) for id_, ahead, characters in rows}

    def _look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        wanted = list(job_ids)
        found: dict[str, tuple[Job, QueuedAhead]] = {}
        with self._database.transaction() as database:
            for start in range(0, len(wanted), IDS_AT_A_TIME):
                ids = wanted[start : start + IDS_AT_A_TIME]
                where = f"WHERE id IN ({_marks(ids)})"
                jobs = self._jobs(database, where, *ids)
                queued = any(job.state is JobState.QUEUED for job in jobs)
                order = self._read_places(database, where, *ids) if queued else {}
                found |= {job.id: (job, order.get(job.id, QueuedAhead(0, 0))) for job in jobs}
        return found

    def _claim(self, without_long_of: Collection[str] | None) -> Job | None:
        if not self._runs_jobs():
            return None
        with self._database.transaction() as database:
            now = self._clock()
            limits = self._limits
            most, most_of_caller = (_MAX, _MAX) if limits.evicts else (limits.audio_bytes, limits.caller_audio_bytes)
            longest = 0 if without_long_of is None else _MAX
            busy = json.dumps(list(without_long_of or ()))
            more = "MAX(1, MIN(MAX(expected_size, kept_size), ?3)) - kept_size"
            while True:
                row = database.execute(
                    "SELECT jobs.id, turn FROM jobs CROSS JOIN callers USING (caller) "  # noqa: S608 - constants
                    "WHERE state = 'queued' AND (due <= ?1 OR due > ?2) "
                    f"AND (concurrency IS NULL OR running < concurrency) AND callers.size + {more} <= ?3 "
                    f"AND (SELECT value FROM totals WHERE name = 'size') + {more} <= ?4 "
                    "AND (characters <= ?5 OR characters <= ?6 AND caller NOT IN (SELECT value FROM json_each(?7))) "
                    "ORDER BY turn, number LIMIT 1",
                    (now, now + MAX_DUE_SECONDS, most_of_caller, most, LONG_CHARACTERS, longest, busy),
                ).fetchone()
                if row is None:
                    return None
                job_id, turn = row
                job = self._find(database, job_id)
                if job is None or job.state is not JobState.QUEUED:  # it was set aside, or its columns were wrong
                    if job is not None:
                        _update(database, job)
                    continue
                job = job.claimed(now, limits.reserved(job.expected_size))
                _update(database, job)
                database.execute("UPDATE totals SET value = MAX(value, ?) WHERE name = 'turn'", (turn,))
                return job

    def _runs_jobs(self) -> bool:
        """Whether this process runs the jobs of the folder; it takes the lock if no process holds it."""
        with self._recovery:
            if not self._runner_lock.acquire():
                return False
            if not self._recovered:
                self._recover()
                self._recovered = True
            return True

    def _recover(self) -> None:
        """Queue the running jobs again: their process has died before it stored a result.

        Segments that a process has left, and that no job goes on from, are deleted.
        """
        with self._database.transaction() as database:
            orphans = [job for job in self._jobs(database, "WHERE state = 'running'") if not job.state.final]
            for job in orphans:
                _update(database, job.orphaned())
            unfinished = {id_ for (id_,) in database.execute("SELECT id FROM jobs WHERE state = 'queued'")}
        if deleted := self._segments.delete_others(unfinished):
            log.warning("deleted the segments of %d jobs that have ended", deleted)
        if orphans:
            log.warning("%d jobs are queued again: the process that ran them has died", len(orphans))

    def _count_segment(self, claimed: Job, number: int, size: int) -> bool:
        """Count a segment of `size` bytes, once; False if the claim no longer holds. Raises StoreFullError."""
        with self._database.transaction() as database:
            claim = _read_claim(database, claimed)
            if claim is None:
                return True  # see _replace; the next run counts it
            if not claim.held:
                return False
            row = (claimed.id, number, size)
            added = database.execute("INSERT OR IGNORE INTO segments VALUES (?, ?, ?)", row).rowcount
            if added and (kept_size := claim.kept_size + size) > claim.counted:
                self._usage(database, claimed.caller_id).check_audio(kept_size, self._limits, kept_size)
            return True

    def _reserve(self, claimed: Job, size: int) -> None:
        """Reserve room for the audio of a claimed job, where it is larger than expected. Raises StoreFullError."""
        with self._database.transaction() as database:
            claim = _read_claim(database, claimed)
            if claim is not None and claim.held and size > claim.counted:
                self._usage(database, claimed.caller_id).check_audio(size, self._limits, claim.counted)
                _update(database, claimed.reserving(size))

    def _replace(self, claimed: Job, job: Job, then: Callable[[sqlite3.Connection], None] = lambda _: None) -> bool:
        """Store the changed `job`, and do `then` in one transaction; False if the claim no longer holds.

        A running job is never deleted, so one that is missing was lost with its database, and is written again.
        """
        replaced = self._replace_in_database(claimed, job, then)
        if replaced and (job.state.final or not job.plan):
            self._segments.delete(job.id)
        return replaced

    def _replace_in_database(self, claimed: Job, job: Job, then: Callable[[sqlite3.Connection], None]) -> bool:
        with self._database.transaction() as database:
            current = self._find(database, claimed.id)
            if current is None:
                names = "id, turn, concurrency, webhook, " + _CHANGING
                values = (job.id, 0, job.concurrency, job.webhook, *_changing(job))
                marks = ", ".join("?" * len(values))
                database.execute(f"INSERT OR IGNORE INTO jobs ({names}) VALUES ({marks})", values)  # noqa: S608
                log.warning("job %s was missing in the database, and was written again", job.id)
                then(database)
                return True
            if current.state is not JobState.RUNNING or current.attempts != claimed.attempts:
                return False
            _update(database, job)
            if not job.plan:
                database.execute("DELETE FROM segments WHERE job = ?", (job.id,))
            then(database)
            return True

    async def _change(self, job: Job, change: Callable[[Job], Job]) -> None:
        def apply() -> None:
            with self._database.transaction() as database:
                current = self._find(database, job.id)
                if current is not None:
                    _update(database, change(current))

        await self._in_thread(apply)

    def _webhooks_due(self, now: float, room: DeliveryRoom) -> list[Job]:
        due: list[Job] = []
        with self._database.transaction() as database:
            callers = sorted(_callers_with_webhooks(database), key=lambda caller: room.callers.get(caller, 0))
            for caller in callers:
                places = min(room.total - len(due), room.per_caller - room.callers.get(caller, 0))
                if places <= 0:
                    continue
                ids: list[str] = []
                receivers = {url: count for (of, url), count in room.receivers.items() if of == caller}
                for id_, url in database.execute(
                    "SELECT id, webhook FROM jobs WHERE caller = ? AND (webhook_due <= ? OR webhook_due > ?) "
                    "ORDER BY webhook_due LIMIT ?",
                    (caller, now, now + MAX_WEBHOOK_DUE_SECONDS, MAX_WEBHOOKS_READ),
                ):
                    if id_ in room.running or receivers.get(url, 0) >= room.per_receiver:
                        continue
                    receivers[url] = receivers.get(url, 0) + 1
                    ids.append(id_)
                    if len(ids) == places:
                        break
                found = [self._find(database, id_) for id_ in ids]
                for job in found:
                    if job is not None and job.webhook_due is None:
                        _update(database, job)  # its columns were wrong
                    elif job is not None:
                        due.append(job)
        return due

    def _delete(self, database: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._results.delete(job)
        database.executemany("DELETE FROM jobs WHERE id = ?", [(job.id,) for job in jobs])

    def _delete_oldest(self, database: sqlite3.Connection, condition: str, *values: object) -> int:
        """Delete the oldest finished job with audio, one whose webhook was delivered if there is any."""
        order = "ORDER BY webhook_due IS NOT NULL, finished LIMIT 1"
        found = self._jobs(database, f"WHERE {condition} state = 'done' AND size > 0 {order}", *values)
        self._delete(database, found)
        return len(found)

    def _select(self, where: str, *values: object) -> list[Job]:
        with self._database.transaction() as database:
            return self._jobs(database, where, *values)

    # Rows of the database.

    def _find(self, database: sqlite3.Connection, job_id: str) -> Job | None:
        return next(iter(self._jobs(database, "WHERE id = ?", job_id)), None)

    def _find_earlier(self, database: sqlite3.Connection, jobs: Sequence[Job]) -> dict[str | None, Job]:
        """The jobs of the same caller that have the idempotency keys of these, by key."""
        keys = [job.idempotency_key for job in jobs if job.idempotency_key is not None]
        if not keys:
            return {}
        where = f"WHERE caller = ? AND idempotency_key IN ({', '.join('?' * len(keys))})"
        return {job.idempotency_key: job for job in self._jobs(database, where, jobs[0].caller_id, *keys)}

    def _jobs(self, database: sqlite3.Connection, where: str, *values: object) -> list[Job]:
        """The jobs of these rows. Those that cannot be read are set aside: a failed job stands in for each."""
        columns = f"number, id, caller, attempts, idempotency_key, content, {_KEPT}"
        rows = database.execute(f"SELECT {columns} FROM jobs {where}", values).fetchall()  # noqa: S608 - constants of this module
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
                _update(database, job)
                self.unreadable += 1
                log.error("job %s cannot be read, and has failed: %s", job.id, error)
            jobs.append(job)
        return jobs


@dataclass(frozen=True)
class _Claim:
    """What a row says of a claim: whether it holds, and what counts as the job's audio."""

    held: bool
    running: bool
    reserved: int
    kept_size: int

    @property
    def counted(self) -> int:
        return max(self.reserved, self.kept_size)


def _read_claim(database: sqlite3.Connection, claimed: Job) -> _Claim | None:
    """The row of a claimed job; None if there is none."""
    row = database.execute(
        "SELECT state = 'running' AND attempts = ?, state = 'running', size, kept_size FROM jobs WHERE id = ?",
        (claimed.attempts, claimed.id),
    ).fetchone()
    return None if row is None else _Claim(bool(row[0]), bool(row[1]), row[2], row[3])


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _next_turn(database: sqlite3.Connection, caller: str) -> int:
    """The turn of a caller's next job."""
    (turn,) = database.execute(
        "SELECT MAX((SELECT value FROM totals WHERE name = 'turn'), "
        "COALESCE((SELECT MAX(turn) FROM jobs WHERE caller = ? AND state = 'queued'), 0))",
        (caller,),
    ).fetchone()
    return int(turn) + 1


def _callers_with_webhooks(database: sqlite3.Connection) -> list[str]:
    """The callers that have webhooks to be delivered. Each is one step in the index, however many it has."""
    first = "SELECT MIN(caller) FROM jobs WHERE webhook_due IS NOT NULL"
    found = database.execute(
        f"WITH RECURSIVE found(caller) AS ({first} UNION ALL "  # noqa: S608 - constants
        f"SELECT ({first} AND caller > found.caller) FROM found WHERE found.caller IS NOT NULL) "
        "SELECT caller FROM found WHERE caller IS NOT NULL"
    )
    return [caller for (caller,) in found]


def _update(database: sqlite3.Connection, job: Job) -> None:
    changes = ", ".join(f"{name} = ?" for name in _CHANGING.split(", "))
    database.execute(f"UPDATE jobs SET {changes} WHERE id = ?", (*_changing(job), job.id))  # noqa: S608 - constants


# KeptCounts as JSON. A segment is playable if as many come before it as its number says. Few jobs have segments.
_KEPT = (
    "CASE WHEN EXISTS (SELECT 1 FROM segments WHERE job = jobs.id) THEN "
    "(SELECT json_array(COUNT(*), SUM(size), SUM(number = place), SUM(size * (number = place))) FROM "
    "(SELECT number, size, ROW_NUMBER() OVER (ORDER BY number) - 1 AS place FROM segments WHERE job = jobs.id)) "
    "ELSE '[]' END"
)

_CHANGING = (
    "state, due, characters, attempts, caller, idempotency_key, finished, webhook_due, size, expected_size, content"
)


def _insert(database: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Add rows of id, turn, concurrency, webhook and what changes."""
    if rows:
        marks = ", ".join([f"({', '.join('?' * len(rows[0]))})"] * len(rows))
        names = "id, turn, concurrency, webhook, " + _CHANGING
        values = [value for row in rows for value in row]
        database.execute(f"INSERT INTO jobs ({names}) VALUES {marks}", values)  # noqa: S608 - constants


def _changing(job: Job) -> tuple[object, ...]:
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
        job.model_dump_json(),
    )
