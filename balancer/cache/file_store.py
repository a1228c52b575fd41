"""A store of audio on this host: one file per entry, and an SQLite index of sizes and last use.

Several processes may share it. A hit reads one file and nothing else: its header holds age and checksum. Last uses are
written to the index every few seconds. An entry is in the index before its file exists and until after it is deleted,
so no file is ever lost from the index; and a file appears complete or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from balancer.audio.held_audio import MAX_IN_MEMORY_BYTES
from balancer.cache.store import (
    HEADER_BYTES,
    CachedAudio,
    CacheStats,
    ChecksumError,
    StoreError,
    digest_of_caller,
    entry_header,
    open_entry,
    unpack_entry,
)
from balancer.runtime.thread_pool import ThreadPool

log = logging.getLogger(__name__)

INDEX = "index.sqlite3"
TOUCH_INTERVAL_SECONDS = 2.0
"""Pause between two writes of last uses to the index."""
READERS = 4
WRITERS = 2
"""Threads that read entries, and that write entries and the index."""
MAX_WAITING_WRITES = 200
"""Writes that may wait; audio past them is not stored. They hold it in memory or in temporary files."""
CLOSING_SECONDS = 5.0
"""Time that closing may take."""
DELETION_BATCH = 64
"""Maximum number of entries that are deleted at a time: no other process writes to the index meanwhile."""
ABANDONED_SECONDS = 600.0
"""Age at which an incomplete file is deleted: its process has died."""

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
CREATE TABLE IF NOT EXISTS owners (key TEXT PRIMARY KEY, caller TEXT NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shares (caller TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_caller ON owners (caller);
CREATE INDEX IF NOT EXISTS by_share ON shares (bytes);
CREATE TRIGGER IF NOT EXISTS owned AFTER INSERT ON owners BEGIN
    INSERT INTO shares VALUES (NEW.caller, NEW.bytes) ON CONFLICT (caller) DO UPDATE SET bytes = bytes + NEW.bytes;
END;
CREATE TRIGGER IF NOT EXISTS disowned AFTER DELETE ON owners BEGIN
    UPDATE shares SET bytes = bytes - OLD.bytes WHERE caller = OLD.caller;
    DELETE FROM shares WHERE caller = OLD.caller AND bytes <= 0;
END;
CREATE TRIGGER IF NOT EXISTS dropped_owned AFTER DELETE ON entries BEGIN
    DELETE FROM owners WHERE key = OLD.key;
END;
"""
# Entries of versions that knew no callers have no owner: they are evicted as those of one caller more.

T = TypeVar("T")


class FileStore:
    """An AudioStore in `folder`: stores audio for `lifetime` seconds within `limit` bytes. `clock` gives Unix time."""

    def __init__(self, folder: Path, *, limit: int, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._limit = limit
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        # Apart, as a write may wait for the disk, or for a lock that another process holds.
        self._readers = ThreadPool("cache-read", READERS)
        self._writers = ThreadPool("cache-write", WRITERS, max_waiting=MAX_WAITING_WRITES)
        self._index: sqlite3.Connection | None = None
        self._used: dict[str, float] = {}
        self._touched = 0.0

    async def get(self, cache_key: str) -> CachedAudio | None:
        """See AudioStore."""
        audio = await self._in_thread(self._readers, lambda: self._get(cache_key))
        if audio is not None and self._clock() - self._touched > TOUCH_INTERVAL_SECONDS:
            self._touched = self._clock()
            self._writers.start(self._try_touch)
        return audio

    async def put(self, cache_key: str, audio: CachedAudio, caller: str = "") -> None:
        """See AudioStore."""
        await self._in_thread(self._writers, lambda: self._put(cache_key, audio, digest_of_caller(caller)))

    async def stats(self) -> CacheStats:
        """See AudioStore."""
        return await self._in_thread(self._writers, self._stats)

    async def clear(self) -> int:
        """See AudioStore."""
        return await self._in_thread(self._writers, self._clear)

    async def aclose(self) -> None:
        """See AudioStore. Last uses that cannot be written within CLOSING_SECONDS are lost."""
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._in_thread(self._writers, self._close)
        except TimeoutError as error:
            raise StoreError(f"the audio cache in {self._folder} does not answer") from error
        finally:
            self._readers.close()
            self._writers.close()

    async def _in_thread(self, pool: ThreadPool, work: Callable[[], T]) -> T:
        try:
            return await pool.run(work)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the audio cache in {self._folder} cannot be used: {error}") from error

    def _get(self, cache_key: str) -> CachedAudio | None:
        file = self._file(cache_key)
        try:
            audio = _read(cache_key, file)
        except FileNotFoundError:
            return None
        except ChecksumError as error:
            log.warning("%s is damaged and deleted: %s", file, error)
            self._delete(cache_key)
            return None
        now = self._clock()
        if now - audio.created > self._lifetime:
            self._delete(cache_key)
            return None
        self._used[cache_key] = now
        return audio

    def _try_touch(self) -> None:
        try:
            with self._open() as index:
                self._touch(index)
        except (OSError, sqlite3.Error) as error:  # the audio is there all the same
            log.warning("the last uses of cached audio cannot be written to %s: %s", self._folder, error)

    def _put(self, cache_key: str, audio: CachedAudio, caller: str) -> None:
        file = self._file(cache_key)
        size = HEADER_BYTES + len(audio.data)
        if size > self._limit:
            return
        with self._open() as index:
            self._touch(index)
            self._enter(index, cache_key, size, caller)
        # The name is this thread's own: another process may be writing the same entry.
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as output:
                output.write(entry_header(cache_key, audio))
                for piece in audio.data.pieces():
                    output.write(piece)
            with self._open() as index:
                # Another writer may have evicted the entry while it had no file. Now it waits until the file is there.
                self._enter(index, cache_key, size, caller)
                temporary.replace(file)
        except (OSError, sqlite3.Error):
            temporary.unlink(missing_ok=True)  # first: on a full disk the index needs the room
            with suppress(OSError, sqlite3.Error):
                self._delete(cache_key)
            raise
        self._evict()

    def _enter(self, index: sqlite3.Connection, cache_key: str, size: int, caller: str) -> None:
        """Add an entry to the index, or make it anew; no other writer changes the index before the transaction ends."""
        index.execute(
            "INSERT INTO entries VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes, used = excluded.used",
            (cache_key, size, self._clock()),
        )
        index.execute("DELETE FROM owners WHERE key = ?", (cache_key,))
        index.execute("INSERT INTO owners VALUES (?, ?, ?)", (cache_key, caller, size))

    def _evict(self) -> None:
        while True:
            with self._open() as index:
                _, total = index.execute("SELECT entries, bytes FROM totals").fetchone()
                excess = total - self._limit
                if excess <= 0:
                    return
                self._drop(index, _evicted(index, total, excess))

    def _delete(self, cache_key: str) -> None:
        with self._open() as index:
            self._drop(index, [cache_key])

    def _drop(self, index: sqlite3.Connection, cache_keys: list[str]) -> None:
        """Delete entries with their files: no writer adds an entry anew between its file's end and its own."""
        index.executemany("DELETE FROM entries WHERE key = ?", [(cache_key,) for cache_key in cache_keys])
        for cache_key in cache_keys:
            self._file(cache_key).unlink(missing_ok=True)
            self._used.pop(cache_key, None)

    def _stats(self) -> CacheStats:
        with self._open() as index:
            entries, size = index.execute("SELECT entries, bytes FROM totals").fetchone()
        return CacheStats(entries, size, self._limit, str(self._folder))

    def _clear(self) -> int:
        deleted = 0
        while True:
            with self._open() as index:
                found = index.execute("SELECT key FROM entries LIMIT ?", (DELETION_BATCH,)).fetchall()
                self._drop(index, [cache_key for (cache_key,) in found])
            if not found:
                return deleted
            deleted += len(found)

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
        """The index in a transaction, for one thread at a time."""
        with self._lock:
            if self._index is None:
                self._index = self._connect()
            try:
                with self._index:
                    yield self._index
            except sqlite3.DatabaseError as error:
                # The next transaction opens it again, as its file may have been deleted.
                self._index.close()
                self._index = None
                if _is_corrupt(error):
                    self._delete_index()
                raise

    def _connect(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            index, is_new = self._open_index()
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise
            self._delete_index()
            index, is_new = self._open_index()
        with index:
            self._tidy(index, adopt_files=is_new)
        return index

    def _open_index(self) -> tuple[sqlite3.Connection, bool]:
        """The index, and whether it has just been created."""
        path = self._folder / INDEX
        is_new = not path.exists()
        index = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
        try:
            index.execute("PRAGMA journal_mode = WAL")
            # Audio that a power failure loses is synthesized again.
            index.execute("PRAGMA synchronous = OFF")
            index.executescript(_SCHEMA)
            index.execute("SELECT COUNT(*) FROM entries").fetchone()
        except BaseException:
            index.close()
            raise
        return index, is_new

    def _delete_index(self) -> None:
        log.warning("the index in %s is damaged and is rebuilt", self._folder)
        for suffix in ("", "-wal", "-shm"):
            (self._folder / f"{INDEX}{suffix}").unlink(missing_ok=True)

    def _tidy(self, index: sqlite3.Connection, *, adopt_files: bool) -> None:
        """Delete the incomplete files of processes that have died; add the existing files to a new index."""
        for file in self._folder.glob("??/*"):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            if file.name.startswith("."):
                if self._clock() - status.st_mtime > ABANDONED_SECONDS:
                    file.unlink(missing_ok=True)
            elif adopt_files:
                index.execute(
                    "INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", (file.name, status.st_size, status.st_mtime)
                )

    def _touch(self, index: sqlite3.Connection) -> None:
        """Write the last uses to the index."""
        self._touched = self._clock()
        used, self._used = self._used, {}
        index.executemany(
            "UPDATE entries SET used = ? WHERE key = ?", [(at, cache_key) for cache_key, at in used.items()]
        )

    def _file(self, cache_key: str) -> Path:
        return self._folder / cache_key[:2] / cache_key


def _read(cache_key: str, file: Path) -> CachedAudio:
    """An entry: a small one in memory, a large one in its file. Raises OSError, ChecksumError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size > HEADER_BYTES + MAX_IN_MEMORY_BYTES:
            return open_entry(cache_key, os.dup(descriptor), size)
        return unpack_entry(cache_key, os.pread(descriptor, size, 0))
    finally:
        os.close(descriptor)


def _evicted(index: sqlite3.Connection, total: int, excess: int) -> list[str]:
    """Keys of entries to evict, at least one: the least recently used ones of the caller that has most.

    It loses no more than makes it equal to the caller that has second most, so that a few calls even the shares out.
    """
    shares = index.execute("SELECT caller, bytes FROM shares ORDER BY bytes DESC LIMIT 2").fetchall()
    (owned,) = index.execute("SELECT COALESCE(SUM(bytes), 0) FROM shares").fetchone()
    shares = sorted([*shares, (None, total - owned)], key=lambda share: share[1], reverse=True)
    (caller, most), (_, second) = shares[:2] if len(shares) > 1 else (shares[0], (None, 0))
    where = (
        "key NOT IN (SELECT key FROM owners)" if caller is None else "key IN (SELECT key FROM owners WHERE caller = ?)"
    )
    oldest = index.execute(
        f"SELECT key, bytes FROM entries WHERE {where} ORDER BY used LIMIT ?",  # noqa: S608 - constants
        (*(() if caller is None else (caller,)), DELETION_BATCH),
    )
    evicted = []
    for cache_key, size in oldest:
        evicted.append(cache_key)
        excess -= size
        most -= size
        if excess <= 0 or most < second:
            break
    return evicted


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    """Whether the file of the index is damaged, so that trying again is of no use."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
