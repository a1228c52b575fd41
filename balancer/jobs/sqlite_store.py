"""Jobs in one SQLite file on this host, with a file for the audio of each.

Only one process at a time runs the jobs of a folder: the holder of a lock file, which the kernel unlocks when the
process dies. A job that is running when the lock is acquired has therefore lost its process, and is queued again.
Other processes may add and read jobs meanwhile.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job, JobError, JobState
from balancer.jobs.store import IdempotencyError, JobStoreError, QueuedAhead, Result
from balancer.thread_pool import ThreadPool

log = logging.getLogger(__name__)

DATABASE = "jobs.sqlite3"
LOCK = "runner.lock"
IDS_AT_A_TIME = 500
"""Ids in one query; SQLite limits their number."""
THREADS = 4
"""They take turns at the database; results are written beside it."""
CLOSING_SECONDS = 5.0
"""Time that closing may take."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    due REAL NOT NULL,
    characters INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    caller TEXT NOT NULL,
    idempotency_key TEXT,
    finished REAL,
    webhook_due REAL,
    content TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS by_idempotency_key ON jobs (caller, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
CREATE INDEX IF NOT EXISTS by_end ON jobs (finished) WHERE finished IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_webhook ON jobs (webhook_due) WHERE webhook_due IS NOT NULL;
"""

T = TypeVar("T")


class SqliteJobStore:
    """A JobStore in `folder`. `clock` gives Unix time."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._results = folder / "results"
        self._clock = clock
        self._pool = ThreadPool("jobs", THREADS)
        self._database_lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._claim_lock = threading.Lock()
        self._lock_fd: int | None = None

    # The methods of JobStore.

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """See JobStore."""
        return await self._in_thread(lambda: self._add(jobs))

    async def get(self, job_id: str) -> Job | None:
        """See JobStore."""
        return await self._in_thread(lambda: self._get(job_id))

    async def ahead(self, job: Job) -> QueuedAhead:
        """See JobStore."""

        def count() -> QueuedAhead:
            with self._open() as database:
                jobs, characters = database.execute(
                    "SELECT COUNT(*), COALESCE(SUM(characters), 0) FROM jobs "
                    "WHERE state = 'queued' AND number < (SELECT number FROM jobs WHERE id = ?)",
                    (job.id,),
                ).fetchone()
                return QueuedAhead(jobs, characters)

        return await self._in_thread(count)

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """See JobStore."""
        return await self._in_thread(lambda: self._look(job_ids))

    async def claim(self) -> Job | None:
        """See JobStore."""
        return await self._in_thread(self._claim)

    async def finish(self, job: Job, result: Result) -> bool:
        """See JobStore."""

        def end() -> bool:
            self._write_audio(job, result.audio)
            return self._replace(job, job.done(self._clock(), seconds=result.seconds, digest=result.digest))

        return await self._in_thread(end)

    async def fail(self, job: Job, error: JobError) -> bool:
        """See JobStore."""
        return await self._in_thread(lambda: self._replace(job, job.failed(self._clock(), error)))

    async def retry_later(self, job: Job, error: JobError, due: float) -> bool:
        """See JobStore."""
        return await self._in_thread(lambda: self._replace(job, job.queued_for_retry(error, due)))

    async def release(self, job: Job) -> None:
        """See JobStore."""
        await self._in_thread(lambda: self._replace(job, job.released()))

    async def cancel(self, job_id: str) -> Job | None:
        """See JobStore."""

        def end() -> Job | None:
            with self._open() as database:
                job = _find(database, job_id)
                if job is None or job.state.final:
                    return job
                job = job.cancelled(self._clock())
                _update(database, job)
                return job

        return await self._in_thread(end)

    async def audio(self, job: Job) -> Path | None:
        """See JobStore."""
        file = self._audio_file(job)
        return file if await self._in_thread(file.exists) else None

    async def counts(self) -> dict[JobState, int]:
        """See JobStore."""

        def count() -> dict[JobState, int]:
            with self._open() as database:
                found = dict(database.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
            return {state: found.get(state.value, 0) for state in JobState}

        return await self._in_thread(count)

    async def failed(self, limit: int) -> list[Job]:
        """See JobStore."""
        return await self._in_thread(
            lambda: self._select("WHERE state = 'failed' ORDER BY finished DESC LIMIT ?", limit)
        )

    async def requeue(self, job_id: str) -> Job | None:
        """See JobStore."""

        def requeue() -> Job | None:
            with self._open() as database:
                job = _find(database, job_id)
                if job is None or job.state is not JobState.FAILED:
                    return None
                job = job.requeued()
                _update(database, job)
                return job

        return await self._in_thread(requeue)

    async def webhooks_due(self, now: float) -> list[Job]:
        """See JobStore."""
        where = "WHERE webhook_due <= ? ORDER BY webhook_due LIMIT 100"
        return await self._in_thread(lambda: self._select(where, now) if self._acquire_lock() else [])

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """See JobStore."""

        def record() -> None:
            with self._open() as database:
                current = _find(database, job.id)
                if current is not None:
                    _update(database, current.after_webhook_attempt(due=due, error=error))

        await self._in_thread(record)

    async def purge(self, before: float) -> int:
        """See JobStore."""

        def delete() -> int:
            old = self._select("WHERE finished < ? AND webhook_due IS NULL LIMIT 1000", before)
            for job in old:
                self._audio_file(job).unlink(missing_ok=True)
            with self._open() as database:
                database.executemany("DELETE FROM jobs WHERE id = ?", [(job.id,) for job in old])
            return len(old)

        return await self._in_thread(delete)

    async def aclose(self) -> None:
        """See JobStore."""

        def close() -> None:
            with self._database_lock:
                if self._database is not None:
                    self._database.close()
                    self._database = None
                if self._lock_fd is not None:
                    os.close(self._lock_fd)
                    self._lock_fd = None

        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._in_thread(close)
        except TimeoutError as error:
            raise JobStoreError(f"the job store in {self._folder} does not answer") from error
        finally:
            self._pool.close()

    # Helpers, which block; _in_thread runs them.

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await self._pool.run(work)
        except (OSError, sqlite3.Error) as error:
            raise JobStoreError(f"the job store in {self._folder} cannot be used: {error}") from error

    def _add(self, jobs: Sequence[Job]) -> list[Job]:
        added = []
        with self._open() as database:
            for job in jobs:
                earlier = _find_earlier(database, job)
                if earlier is None:
                    database.execute(
                        "INSERT INTO jobs (id, state, due, characters, attempts, caller, idempotency_key, finished, "
                        "webhook_due, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (job.id, *_columns(job)),
                    )
                elif earlier.request_digest != job.request_digest:
                    raise IdempotencyError(job.idempotency_key)
                added.append(earlier or job)
        return added

    def _get(self, job_id: str) -> Job | None:
        with self._open() as database:
            return _find(database, job_id)

    def _look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        wanted = list(job_ids)
        with self._open() as database:
            found = [
                Job.model_validate_json(content)
                for start in range(0, len(wanted), IDS_AT_A_TIME)
                for (content,) in database.execute(
                    f"SELECT content FROM jobs WHERE id IN ({_marks(wanted[start : start + IDS_AT_A_TIME])})",  # noqa: S608 - marks
                    wanted[start : start + IDS_AT_A_TIME],
                )
            ]
            queued = {job.id for job in found if job.state is JobState.QUEUED}
            order = database.execute("SELECT id, characters FROM jobs WHERE state = 'queued' ORDER BY number")
            ahead = _ahead_of(queued, order.fetchall() if queued else [])
        return {job.id: (job, ahead.get(job.id, QueuedAhead(0, 0))) for job in found}

    def _claim(self) -> Job | None:
        if not self._acquire_lock():
            return None
        with self._open() as database:
            row = database.execute(
                "SELECT content FROM jobs WHERE state = 'queued' AND due <= ? ORDER BY number LIMIT 1",
                (self._clock(),),
            ).fetchone()
            if row is None:
                return None
            job = Job.model_validate_json(row[0]).claimed(self._clock())
            _update(database, job)
            return job

    def _acquire_lock(self) -> bool:
        """Whether this process runs the jobs of the folder; it takes the lock if no process holds it."""
        with self._claim_lock:
            return self._lock_fd is not None or self._try_lock()

    def _try_lock(self) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._recover()
        except BlockingIOError:
            os.close(lock)
            return False
        except BaseException:
            os.close(lock)
            raise
        self._lock_fd = lock
        return True

    def _recover(self) -> None:
        """Queue the running jobs again: their process has died before it stored a result."""
        orphans = self._select("WHERE state = 'running'")
        with self._open() as database:
            for job in orphans:
                _update(database, job.orphaned())
        if orphans:
            log.warning("%d jobs are queued again: the process that ran them has died", len(orphans))

    def _replace(self, claimed: Job, job: Job) -> bool:
        """Store the changed `job`; False if the claim no longer holds."""
        with self._open() as database:
            current = _find(database, claimed.id)
            if current is None or current.state is not JobState.RUNNING or current.attempts != claimed.attempts:
                return False
            _update(database, job)
            return True

    def _select(self, where: str, *values: object) -> list[Job]:
        with self._open() as database:
            rows = database.execute(f"SELECT content FROM jobs {where}", values)  # noqa: S608 - constants of this module
            return [Job.model_validate_json(content) for (content,) in rows]

    def _write_audio(self, job: Job, audio: AudioBuffer) -> None:
        """Write the audio durably, before the job's state says that it is done."""
        self._results.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self._audio_file(job)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as output:
                for piece in audio.pieces():
                    output.write(piece)
                output.flush()
                os.fsync(output.fileno())
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _audio_file(self, job: Job) -> Path:
        return self._results / f"{job.id}{job.suffix}"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, which locks out every other writer from its beginning."""
        with self._database_lock:
            if self._database is None:
                self._database = self._connect()
            database = self._database
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # SQLite rolls back by itself when the disk is full
                    database.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(self._folder / DATABASE, timeout=10.0, check_same_thread=False, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # Accepted jobs survive a power failure, too.
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _ahead_of(job_ids: Collection[str], order: Iterable[tuple[str, int]]) -> dict[str, QueuedAhead]:
    """What is before each of these jobs; `order` has the id and the characters of each queued job."""
    ahead, characters = {}, 0
    for jobs, (job_id, length) in enumerate(order):
        if job_id in job_ids:
            ahead[job_id] = QueuedAhead(jobs, characters)
        characters += length
    return ahead


def _find(database: sqlite3.Connection, job_id: str) -> Job | None:
    row = database.execute("SELECT content FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else Job.model_validate_json(row[0])


def _find_earlier(database: sqlite3.Connection, job: Job) -> Job | None:
    if job.idempotency_key is None:
        return None
    row = database.execute(
        "SELECT content FROM jobs WHERE caller = ? AND idempotency_key = ?", (job.caller, job.idempotency_key)
    ).fetchone()
    return None if row is None else Job.model_validate_json(row[0])


def _update(database: sqlite3.Connection, job: Job) -> None:
    database.execute(
        "UPDATE jobs SET state = ?, due = ?, characters = ?, attempts = ?, caller = ?, idempotency_key = ?, "
        "finished = ?, webhook_due = ?, content = ? WHERE id = ?",
        (*_columns(job), job.id),
    )


def _columns(job: Job) -> tuple[object, ...]:
    """The columns of a job but for its id: the fields that queries use, and the whole job as JSON."""
    return (
        job.state.value,
        job.due,
        job.characters,
        job.attempts,
        job.caller,
        job.idempotency_key,
        job.finished,
        job.webhook_due,
        json.dumps(job.model_dump(mode="json"), separators=(",", ":")),
    )
