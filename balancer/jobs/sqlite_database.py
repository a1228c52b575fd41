"""The SQLite file of the jobs: its schema, its transactions, and its replacement where it was removed or is damaged.

SQLite goes on writing to a file that was deleted under it, so the file is compared with the one that is open before and
after each transaction. What is in a deleted file can still be read, and is written to a new one.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

DATABASE = "jobs.sqlite3"
BUSY_SECONDS = 5.0
"""How long a transaction waits for another process's."""
VERSION = 2
"""The schema's version, in `PRAGMA user_version`. 0 had no turns, sizes, counts, 1 no segments, expected sizes."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_TABLE = """
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
"""

_NEW_COLUMNS = {
    "turn": "INTEGER NOT NULL DEFAULT 0",
    "concurrency": "INTEGER",
    "size": "INTEGER NOT NULL DEFAULT 0",
    "webhook": "TEXT",
    "unreadable": "TEXT",  # content that could not be read, where `content` stands in for it
    "expected_size": "INTEGER NOT NULL DEFAULT 0",
    "kept_size": "INTEGER NOT NULL DEFAULT 0",  # of all of a job's segments; triggers keep it
}
"""Columns that came after version 0. An earlier version of the balancer leaves them at their defaults."""

_INDEXES = """
CREATE UNIQUE INDEX IF NOT EXISTS by_idempotency_key ON jobs (caller, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_turn ON jobs (state, turn, number, characters);
CREATE INDEX IF NOT EXISTS by_caller ON jobs (caller, state, turn);
CREATE INDEX IF NOT EXISTS by_end ON jobs (finished) WHERE finished IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_size ON jobs (finished) WHERE size > 0;
CREATE INDEX IF NOT EXISTS by_receiver ON jobs (caller, webhook_due, webhook) WHERE webhook_due IS NOT NULL;
DROP INDEX IF EXISTS by_state;
DROP INDEX IF EXISTS by_webhook;
"""

# What each caller's jobs take up, and how many there are in each state. Triggers keep it, so that no query counts rows
# and every version and process that changes a job counts alike. What is kept of a job is a part of what is reserved for
# it, so the larger of the two counts.
_COUNTS = """
CREATE TABLE IF NOT EXISTS callers (
    caller TEXT PRIMARY KEY,
    kept INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    running INTEGER NOT NULL,
    size INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO totals VALUES ('turn', 0), ('size', 0);

DROP TRIGGER IF EXISTS count_added;
CREATE TRIGGER count_added AFTER INSERT ON jobs BEGIN
    INSERT OR IGNORE INTO callers VALUES (NEW.caller, 0, 0, 0, 0);
    UPDATE callers SET kept = kept + 1, queued = queued + (NEW.state = 'queued'),
        running = running + (NEW.state = 'running'), size = size + MAX(NEW.size, NEW.kept_size)
        WHERE caller = NEW.caller;
    INSERT OR IGNORE INTO totals VALUES (NEW.state, 0);
    UPDATE totals SET value = value + 1 WHERE name = NEW.state;
    UPDATE totals SET value = value + MAX(NEW.size, NEW.kept_size) WHERE name = 'size';
END;
DROP TRIGGER IF EXISTS count_changed;
CREATE TRIGGER count_changed AFTER UPDATE ON jobs
WHEN OLD.state <> NEW.state OR MAX(OLD.size, OLD.kept_size) <> MAX(NEW.size, NEW.kept_size) BEGIN
    UPDATE callers SET queued = queued + (NEW.state = 'queued') - (OLD.state = 'queued'),
        running = running + (NEW.state = 'running') - (OLD.state = 'running'),
        size = size + MAX(NEW.size, NEW.kept_size) - MAX(OLD.size, OLD.kept_size) WHERE caller = NEW.caller;
    INSERT OR IGNORE INTO totals VALUES (NEW.state, 0);
    UPDATE totals SET value = value - 1 WHERE name = OLD.state;
    UPDATE totals SET value = value + 1 WHERE name = NEW.state;
    UPDATE totals SET value = value + MAX(NEW.size, NEW.kept_size) - MAX(OLD.size, OLD.kept_size) WHERE name = 'size';
END;
DROP TRIGGER IF EXISTS count_deleted;
CREATE TRIGGER count_deleted AFTER DELETE ON jobs BEGIN
    UPDATE callers SET kept = kept - 1, queued = queued - (OLD.state = 'queued'),
        running = running - (OLD.state = 'running'), size = size - MAX(OLD.size, OLD.kept_size)
        WHERE caller = OLD.caller;
    DELETE FROM callers WHERE caller = OLD.caller AND kept = 0;
    UPDATE totals SET value = value - 1 WHERE name = OLD.state;
    UPDATE totals SET value = value - MAX(OLD.size, OLD.kept_size) WHERE name = 'size';
END;
"""

# Segments that are kept for jobs that have not ended.
_SEGMENTS = """
CREATE TABLE IF NOT EXISTS segments (
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS count_kept AFTER INSERT ON segments BEGIN
    UPDATE jobs SET kept_size = kept_size + NEW.size WHERE id = NEW.job;
END;
CREATE TRIGGER IF NOT EXISTS count_dropped AFTER DELETE ON segments BEGIN
    UPDATE jobs SET kept_size = kept_size - OLD.size WHERE id = OLD.job;
END;
CREATE TRIGGER IF NOT EXISTS drop_segments_of_ended AFTER UPDATE OF state ON jobs
WHEN NEW.state NOT IN ('queued', 'running') BEGIN
    DELETE FROM segments WHERE job = NEW.id;
END;
CREATE TRIGGER IF NOT EXISTS drop_segments_of_deleted AFTER DELETE ON jobs BEGIN
    DELETE FROM segments WHERE job = OLD.id;
END;
"""

_UPGRADE = """
UPDATE jobs SET webhook = json_extract(content, '$.webhook') WHERE webhook_due IS NOT NULL AND json_valid(content);
UPDATE jobs SET turn = (SELECT place FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY caller ORDER BY number) AS place
    FROM jobs WHERE state = 'queued') AS places WHERE places.id = jobs.id) WHERE state = 'queued';
DELETE FROM callers;
DELETE FROM totals WHERE name <> 'turn';
INSERT INTO callers SELECT caller, COUNT(*), SUM(state = 'queued'), SUM(state = 'running'), SUM(size) FROM jobs
    GROUP BY caller;
INSERT INTO totals SELECT state, COUNT(*) FROM jobs GROUP BY state;
INSERT INTO totals SELECT 'size', COALESCE(SUM(size), 0) FROM jobs;
"""

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
            if database.execute("PRAGMA user_version").fetchone()[0] < VERSION:
                self._upgrade(database)
        except BaseException:
            database.close()
            raise
        return database

    def _upgrade(self, database: sqlite3.Connection) -> None:
        """Make the tables, or bring those of an earlier version to this one."""
        database.execute("BEGIN IMMEDIATE")
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version < VERSION:  # another process may have done it
                _execute_all(database, _TABLE)
                self._add_columns(database)
                _execute_all(database, _INDEXES + _SEGMENTS + _COUNTS)
                if version < 1:
                    self._add_counts(database)
                database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _add_columns(self, database: sqlite3.Connection) -> None:
        present = {name for _, name, *_ in database.execute("PRAGMA table_info(jobs)")}
        for name, kind in _NEW_COLUMNS.items():
            if name not in present:
                database.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")

    def _add_counts(self, database: sqlite3.Connection) -> None:
        done = [id_ for (id_,) in database.execute("SELECT id FROM jobs WHERE state = 'done'")]
        sizes = [(self._size_of(id_), id_) for id_ in done]
        database.executemany("UPDATE jobs SET size = ? WHERE id = ?", sizes)
        _execute_all(database, _UPGRADE)


def _execute_all(database: sqlite3.Connection, script: str) -> None:
    """Execute the statements of a script within the transaction: `executescript` would commit it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            database.execute(statement)
            statement = ""


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
