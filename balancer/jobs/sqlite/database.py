"""The SQLite file of the jobs: its transactions, and its replacement where it was removed or is damaged.

SQLite goes on writing to a file that was deleted under it, so the file is compared with the one that is open before and
after each transaction. The jobs in a deleted file can still be read, and are written to a new one.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from balancer.jobs.sqlite.schema import upgrade

log = logging.getLogger(__name__)

DATABASE = "jobs.sqlite3"
BUSY_SECONDS = 5.0
"""Time that a transaction waits for that of another process."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_COLUMNS = (
    "id, state, due, characters, attempts, caller, idempotency_key, finished, webhook_due, content, turn, concurrency, "
    "size, webhook, unreadable, expected_size"
)

_Identity = tuple[int, int]
"""Device and inode of a file."""


class JobDatabase:
    """The database in `folder`. `may_replace` says whether this process may set a damaged one aside.

    `size_of` gives the size of a job's audio, by its id, for the jobs of an earlier version.
    """

    def __init__(self, folder: Path, may_replace: Callable[[], bool], size_of: Callable[[str], int]) -> None:
        self._folder = folder
        self._file = folder / DATABASE
        self._may_replace = may_replace
        self._size_of = size_of
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: _Identity | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, which locks out every other writer from its beginning.

        Raises OSError, sqlite3.Error. A damaged file is replaced by a new one before the error is raised.
        """
        with self._lock:
            try:
                yield from self._transaction()
            except sqlite3.DatabaseError as error:
                self._replace_if_damaged(error)
                raise

    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._current()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite rolls back by itself when the disk is full
                connection.execute("ROLLBACK")
            raise
        self._current()  # what was committed to a file that is gone is written again

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that lies in the folder now."""
        identity = _identity(self._file)
        if self._connection is None or self._identity is None:
            self._connection = self._connect()
            self._identity = _identity(self._file)
        elif identity != self._identity:
            new = self._connect()
            with closing(self._connection) as old:
                copied = _copy(old, new, "1" if identity is None else "state IN ('queued', 'running')")
            how = "removed" if identity is None else "replaced"
            log.error("%s was %s: %d jobs of it were written to the new file", self._file, how, copied)
            self._connection, self._identity = new, _identity(self._file)
        return self._connection

    def _replace_if_damaged(self, error: sqlite3.DatabaseError) -> None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in _DAMAGED or not self._may_replace():
            return
        if self._identity == _identity(self._file):  # else what is open is a removed file, and good
            self.close()
        aside = self._file.with_name(f"{DATABASE}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self._file.with_name(DATABASE + suffix).rename(aside.with_name(aside.name + suffix))
        new = self._current()
        with closing(sqlite3.connect(aside, isolation_level=None)) as old:
            copied = _copy(old, new, "1")
        log.critical(
            "%s is damaged (%s): it was moved to %s; %d jobs of it could be read", self._file, error, aside, copied
        )

    def _connect(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(self._file, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # Accepted jobs survive a power failure, too.
            database.execute("PRAGMA synchronous = FULL")
            upgrade(database, self._size_of)
        except BaseException:
            database.close()
            raise
        return database


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, where: str) -> int:
    """Copy the rows that can be read and are not in the new file; returns how many."""
    values = ", ".join("?" * (_COLUMNS.count(",") + 1))
    copied = 0
    new.execute("BEGIN IMMEDIATE")
    try:
        rows = old.execute(f"SELECT {_COLUMNS} FROM jobs WHERE {where} ORDER BY number")  # noqa: S608 - constants
        for row in rows:
            copied += new.execute(f"INSERT OR IGNORE INTO jobs ({_COLUMNS}) VALUES ({values})", row).rowcount  # noqa: S608
    except sqlite3.DatabaseError as error:
        log.error("the jobs after the first %d cannot be copied: %s", copied, error)
    new.execute(
        "UPDATE totals SET value = MAX(value, COALESCE((SELECT MIN(turn) - 1 FROM jobs WHERE state = 'queued'), 0)) "
        "WHERE name = 'turn'"
    )
    new.execute("COMMIT")
    return copied


def _identity(file: Path) -> _Identity | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
