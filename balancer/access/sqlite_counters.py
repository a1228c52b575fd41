"""Counters of rate limits that outlive a restart, in one SQLite file: for what is counted over a day.

Shorter windows are counted in memory, where a restart costs a minute's memory at most.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from limits.aio.storage.base import Storage

_SCHEMA = "CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, count INTEGER NOT NULL, expires REAL NOT NULL)"

T = TypeVar("T")


class SqliteCounterStorage(Storage):
    """A storage of the limits library, for its fixed windows. `clock` gives Unix time."""

    STORAGE_SCHEME = None

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(wrap_exceptions=True)
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """What goes wrong with a file."""
        return (sqlite3.Error, OSError)

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; the sum since the window began."""

        def count(database: sqlite3.Connection) -> int:
            now = self._clock()
            database.execute("DELETE FROM counts WHERE expires <= ?", (now,))
            (counted,) = database.execute(
                "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET count = count + excluded.count "
                "RETURNING count",
                (key, amount, now + expiry),
            ).fetchone()
            return int(counted)

        return await self._ask(count)

    async def get(self, key: str) -> int:
        """The sum so far."""
        return int((await self._row(key))[0])

    async def get_expiry(self, key: str) -> float:
        """When the window ends; now, where none has begun."""
        return (await self._row(key))[1]

    async def check(self) -> bool:
        """Whether it can be used."""
        await self.get("")
        return True

    async def reset(self) -> int | None:
        """Forget everything."""
        return await self._ask(lambda database: database.execute("DELETE FROM counts").rowcount)

    async def clear(self, key: str) -> None:
        """Forget one."""
        await self._ask(lambda database: database.execute("DELETE FROM counts WHERE key = ?", (key,)).rowcount)

    async def _row(self, key: str) -> tuple[int, float]:
        def look(database: sqlite3.Connection) -> tuple[int, float]:
            now = self._clock()
            found = database.execute(
                "SELECT count, expires FROM counts WHERE key = ? AND expires > ?", (key, now)
            ).fetchone()
            return found or (0, now)

        return await self._ask(look)

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        def ask() -> T:
            with self._lock:
                if self._database is None:
                    self._database = self._connect()
                with self._database:
                    return question(self._database)

        return await asyncio.to_thread(ask)

    def _connect(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(self._file, timeout=5.0, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
