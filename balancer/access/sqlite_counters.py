"""Rate limit counters that survive a restart, in one SQLite file. Limits per day use them.

Shorter windows are counted in memory: a restart loses at most one minute of those counts.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from limits.aio.storage.base import Storage

from balancer.runtime.thread_pool import ThreadPool

_SCHEMA = "CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, count INTEGER NOT NULL, expires REAL NOT NULL)"
_LENGTH = "seconds REAL NOT NULL DEFAULT 86400"
"""Column of a window's length. Files of earlier versions lack it."""

T = TypeVar("T")

CLOSING_SECONDS = 1.0
"""Time that closing may take."""


class SqliteCounterStorage(Storage):
    """A storage for the fixed windows of the `limits` library. `clock` gives Unix time."""

    STORAGE_SCHEME = None

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(wrap_exceptions=True)
        self._file = file
        self._clock = clock
        self._pool = ThreadPool("counters", 1)
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """The errors that the base class wraps in StorageError."""
        return (sqlite3.Error, OSError)

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add `amount`, and return the sum of the window, which lasts `expiry` seconds from its first count."""

        def add(database: sqlite3.Connection) -> int:
            now = self._clock()
            database.execute("DELETE FROM counts WHERE expires <= ?", (now,))
            _shorten(database, key, now)
            (counted,) = database.execute(
                "INSERT INTO counts (key, count, expires, seconds) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET count = count + excluded.count RETURNING count",
                (key, amount, now + expiry, expiry),
            ).fetchone()
            return int(counted)

        return await self._run(add)

    async def get(self, key: str) -> int:
        """The sum of the current window."""
        return int((await self._row(key))[0])

    async def get_expiry(self, key: str) -> float:
        """End of the current window in Unix time; now, if there is none."""
        return (await self._row(key))[1]

    async def check(self) -> bool:
        """True; raises StorageError if the file cannot be used."""
        await self.get("")
        return True

    async def reset(self) -> int | None:
        """Delete every counter, and return how many there were."""
        return await self._run(lambda database: database.execute("DELETE FROM counts").rowcount)

    async def clear(self, key: str) -> None:
        """Delete one counter."""
        await self._run(lambda database: database.execute("DELETE FROM counts WHERE key = ?", (key,)).rowcount)

    async def _row(self, key: str) -> tuple[int, float]:
        def select(database: sqlite3.Connection) -> tuple[int, float]:
            now = self._clock()
            _shorten(database, key, now)
            found = database.execute(
                "SELECT count, expires FROM counts WHERE key = ? AND expires > ?", (key, now)
            ).fetchone()
            return found or (0, now)

        return await self._run(select)

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            with self._lock:
                if self._database is None:
                    self._database = self._connect()
                with self._database:
                    return query(self._database)

        return await self._pool.run(transaction)

    def _connect(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(self._file, timeout=5.0, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_SCHEMA)
            if "seconds" not in {name for _, name, *_ in database.execute("PRAGMA table_info(counts)")}:
                database.execute(f"ALTER TABLE counts ADD COLUMN {_LENGTH}")
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close the file, unless a call hangs in it."""
        self._pool.close()
        if self._lock.acquire(timeout=CLOSING_SECONDS):
            try:
                if self._database is not None:
                    self._database.close()
                    self._database = None
            finally:
                self._lock.release()


def _shorten(database: sqlite3.Connection, key: str, now: float) -> None:
    """Let a window begin now that seems to begin later: it was begun by a clock that was ahead."""
    database.execute("UPDATE counts SET expires = ?1 + seconds WHERE key = ?2 AND expires > ?1 + seconds", (now, key))
