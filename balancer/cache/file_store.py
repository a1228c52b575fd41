"""The embedded store: one file a sound, and an SQLite index of sizes and last use. Several processes may share it.

A hit reads one file and nothing else: its header holds age and checksum. When it was used is noted in the index every
few seconds. An entry is in the index before its file is there and after it is gone, so no file is ever
forgotten, and a file comes into being whole or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from balancer.cache.store import CachedAudio, ChecksumError, Stats, StoreError, pack_entry, unpack_entry

log = logging.getLogger(__name__)

INDEX = "index.sqlite3"
TOUCH_SECONDS = 2.0
"""Between two writes of what was used."""
OLDEST = 64
"""Entries that make room at a time."""
ABANDONED_SECONDS = 600.0
"""A half-written file of this age has nobody who finishes it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON entries (used);
CREATE TABLE IF NOT EXISTS totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM entries WHERE NOT EXISTS (SELECT 1 FROM totals);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.bytes;
END;
CREATE TRIGGER IF NOT EXISTS resized AFTER UPDATE OF bytes ON entries BEGIN
    UPDATE totals SET bytes = bytes + NEW.bytes - OLD.bytes;
END;
CREATE TRIGGER IF NOT EXISTS dropped AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.bytes;
END;
"""

T = TypeVar("T")


class FileStore:
    """Keeps audio below `folder` for `lifetime` seconds, within `limit` bytes. `clock` gives Unix time."""

    def __init__(self, folder: Path, *, limit: int, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._limit = limit
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._index: sqlite3.Connection | None = None
        self._used: dict[str, float] = {}
        self._touched = 0.0

    async def get(self, key: str) -> CachedAudio | None:
        """See AudioStore."""
        return await self._off_the_loop(lambda: self._get(key))

    async def put(self, key: str, kept: CachedAudio) -> None:
        """See AudioStore."""
        await self._off_the_loop(lambda: self._put(key, kept))

    async def stats(self) -> Stats:
        """See AudioStore."""
        return await self._off_the_loop(self._stats)

    async def clear(self) -> int:
        """See AudioStore."""
        return await self._off_the_loop(self._clear)

    async def aclose(self) -> None:
        """See AudioStore."""
        await self._off_the_loop(self._close)

    async def _off_the_loop(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the audio cache in {self._folder} cannot be used: {error}") from error

    def _get(self, key: str) -> CachedAudio | None:
        file = self._file(key)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            kept = unpack_entry(key, content)
        except ChecksumError as error:
            log.warning("%s is damaged and dropped: %s", file, error)
            self._drop([key])
            return None
        now = self._clock()
        if now - kept.created > self._lifetime:
            self._drop([key])
            return None
        self._used[key] = now
        if now - self._touched > TOUCH_SECONDS:
            try:
                with self._open() as index:
                    self._touch(index)
            except (OSError, sqlite3.Error) as error:  # of no concern to who wants the audio
                log.warning("what is used cannot be noted in %s: %s", self._folder, error)
        return kept

    def _put(self, key: str, kept: CachedAudio) -> None:
        file = self._file(key)
        content = pack_entry(key, kept)
        if len(content) > self._limit:
            return
        with self._open() as index:
            self._touch(index)
            index.execute(
                "INSERT INTO entries VALUES (?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes, used = excluded.used",
                (key, len(content), self._clock()),
            )
        # A name of its own: another process may be keeping the same.
        aside = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            aside.replace(file)
        except OSError:
            aside.unlink(missing_ok=True)
            self._drop([key])
            raise
        self._make_room()

    def _make_room(self) -> None:
        while True:
            with self._open() as index:
                _, total = index.execute("SELECT entries, bytes FROM totals").fetchone()
                excess = total - self._limit
                if excess <= 0:
                    return
                oldest = index.execute("SELECT key, bytes FROM entries ORDER BY used LIMIT ?", (OLDEST,)).fetchall()
            going = []
            for key, size in oldest:
                if excess <= 0:
                    break
                going.append(key)
                excess -= size
            self._drop(going)

    def _drop(self, keys: list[str]) -> None:
        for key in keys:
            self._file(key).unlink(missing_ok=True)
            self._used.pop(key, None)
        with self._open() as index:
            index.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])

    def _stats(self) -> Stats:
        with self._open() as index:
            entries, size = index.execute("SELECT entries, bytes FROM totals").fetchone()
        return Stats(entries, size, self._limit, str(self._folder))

    def _clear(self) -> int:
        dropped = 0
        while True:
            with self._open() as index:
                keys = [key for (key,) in index.execute("SELECT key FROM entries LIMIT 1000")]
            if not keys:
                return dropped
            self._drop(keys)
            dropped += len(keys)

    def _close(self) -> None:
        with self._lock:
            if self._index is not None:
                with self._index:
                    self._touch(self._index)
                self._index.close()
                self._index = None

    # The index.

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The index, for one transaction of one thread."""
        with self._lock:
            if self._index is None:
                self._index = self._connect()
            try:
                with self._index:
                    yield self._index
            except sqlite3.DatabaseError as error:
                # The next to come opens it again: its file may have been taken away.
                self._index.close()
                self._index = None
                if _is_damage(error):
                    self._forget_index()
                raise

    def _connect(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            index, fresh = self._opened()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._forget_index()
            index, fresh = self._opened()
        with index:
            self._tidy(index, adopt=fresh)
        return index

    def _opened(self) -> tuple[sqlite3.Connection, bool]:
        """The index, and whether it is new."""
        path = self._folder / INDEX
        fresh = not path.exists()
        index = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
        try:
            index.execute("PRAGMA journal_mode = WAL")
            # A kept sound that power failure takes away is made again.
            index.execute("PRAGMA synchronous = OFF")
            index.executescript(_SCHEMA)
            index.execute("SELECT COUNT(*) FROM entries").fetchone()
        except BaseException:
            index.close()
            raise
        return index, fresh

    def _forget_index(self) -> None:
        log.warning("the index in %s is damaged and made anew", self._folder)
        for suffix in ("", "-wal", "-shm"):
            (self._folder / f"{INDEX}{suffix}").unlink(missing_ok=True)

    def _tidy(self, index: sqlite3.Connection, *, adopt: bool) -> None:
        """Remove what a process that was killed left half written; take files into a new index."""
        for file in self._folder.glob("??/*"):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            if file.name.startswith("."):
                if self._clock() - status.st_mtime > ABANDONED_SECONDS:
                    file.unlink(missing_ok=True)
            elif adopt:
                index.execute(
                    "INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", (file.name, status.st_size, status.st_mtime)
                )

    def _touch(self, index: sqlite3.Connection) -> None:
        self._touched = self._clock()
        used, self._used = self._used, {}
        index.executemany("UPDATE entries SET used = ? WHERE key = ?", [(at, key) for key, at in used.items()])

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether it is the file that is at fault, and the file will stay so."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
