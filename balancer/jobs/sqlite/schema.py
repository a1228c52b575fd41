"""The tables of the SQLite file of jobs, the triggers that count them, and the change from earlier versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

VERSION = 2
"""The schema's version, in `PRAGMA user_version`. 0 had no turns, sizes, counts, 1 no segments, expected sizes."""

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

# The size of each caller's jobs, and the number of jobs in each state. Triggers keep them, so that no query counts rows
# and every version and process that changes a job counts alike. The segments of a job are part of the bytes that are
# reserved for it, so the larger of the two counts.
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


def upgrade(database: sqlite3.Connection, size_of: Callable[[str], int]) -> None:
    """Make the tables, or bring those of an earlier version to this one.

    `size_of` gives the size of a job's audio, by its id, for the jobs of the first version.
    """
    if _version(database) >= VERSION:
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        version = _version(database)
        if version < VERSION:  # another process may have done it
            _execute_all(database, _TABLE)
            _add_columns(database)
            _execute_all(database, _INDEXES + _SEGMENTS + _COUNTS)
            if version < 1:
                _add_counts(database, size_of)
            database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _add_columns(database: sqlite3.Connection) -> None:
    present = {name for _, name, *_ in database.execute("PRAGMA table_info(jobs)")}
    for name, kind in _NEW_COLUMNS.items():
        if name not in present:
            database.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")


def _add_counts(database: sqlite3.Connection, size_of: Callable[[str], int]) -> None:
    done = [id_ for (id_,) in database.execute("SELECT id FROM jobs WHERE state = 'done'")]
    sizes = [(size_of(id_), id_) for id_ in done]
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
