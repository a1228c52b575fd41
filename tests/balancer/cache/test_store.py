"""Both audio stores fulfil the AudioStore protocol, on a real disk and a real Redis."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.held_audio import MAX_IN_MEMORY_BYTES
from balancer.cache.file_store import INDEX, FileStore
from balancer.cache.redis_store import PREFIX, RedisStore
from balancer.cache.store import AudioStore, CachedAudio, ChecksumError, StoreError, pack_entry, unpack_entry
from balancer.redis.client import TIMEOUT_SECONDS, RedisClient
from scripts.support.redis_server import RedisServer
from tests.support.clock import Clock
from tests.support.harness import ROOT, environment, until, wait_until
from tests.support.redis_server import start_redis

KEY, OTHER = "a" * 64, "b" * 64
Opened = Callable[..., Any]


def cached(data: bytes = b"audio", created: float = 1000.0) -> CachedAudio:
    return CachedAudio(MemoryBuffer(data), 1.5, created)


@pytest.fixture(params=["files", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens a store; each call opens the same store again, as another process would."""
    server = request.getfixturevalue("redis") if request.param == "redis" else None
    if server is not None:
        server.empty()
    url = None if server is None else server.url

    @asynccontextmanager
    async def open_store(limit: int = 10**6, clock: Callable[[], float] = lambda: 1000.0) -> AsyncIterator[AudioStore]:
        if url is None:
            store: AudioStore = FileStore(tmp_path, limit=limit, lifetime=100.0, clock=clock)
            yield store
            await store.aclose()
            return
        client = RedisClient(url)
        yield RedisStore(client, limit=limit, lifetime=100.0, clock=clock)
        await client.aclose()

    return open_store


async def test_stored_audio_is_found_again_also_by_another_process(opened: Opened) -> None:
    async with opened() as store:
        assert await store.get(KEY) is None
        await store.put(KEY, cached())
        assert await store.get(KEY) == cached()
        assert await store.get(OTHER) is None
    async with opened() as store:
        assert await store.get(KEY) == cached()


async def test_the_latest_audio_replaces_the_earlier_one(opened: Opened) -> None:
    async with opened() as store:
        await store.put(KEY, cached(b"one"))
        await store.put(KEY, cached(b"another"))
        assert bytes((await store.get(KEY)).data) == b"another"
        stats = await store.stats()
        assert (stats.entries, stats.bytes) == (1, len(pack_entry(KEY, cached(b"another"))))


async def test_an_entry_expires_after_its_lifetime(opened: Opened) -> None:
    clock = Clock()
    async with opened(clock=clock) as store:
        await store.put(KEY, cached())
        clock.now += 100.0
        assert await store.get(KEY) is not None
        clock.now += 0.1
        assert await store.get(KEY) is None


async def test_the_least_recently_used_entry_is_evicted(opened: Opened) -> None:
    clock = Clock()
    size = len(pack_entry(KEY, cached(bytes(1000))))
    async with opened(limit=3 * size, clock=clock) as store:
        for key in "cde":
            clock.now += 1
            await store.put(key * 64, cached(bytes(1000)))
        clock.now += 3
        await store.get("c" * 64)
        await store.put("f" * 64, cached(bytes(1000)))
        found = {key for key in "cdef" if await store.get(key * 64) is not None}
        assert found == set("cef")
        stats = await store.stats()
        assert (stats.entries, stats.bytes) == (3, 3 * size)


async def test_one_caller_does_not_push_out_the_others(opened: Opened) -> None:
    clock = Clock()
    size = len(pack_entry(KEY, cached(bytes(1000))))
    async with opened(limit=10 * size, clock=clock) as store:
        for number in range(4):
            clock.now += 1
            await store.put(f"{number:064}", cached(bytes(1000)), "modest")
        for number in range(4, 40):
            clock.now += 1
            await store.put(f"{number:064}", cached(bytes(1000), clock.now), "greedy")
        found = [number for number in range(40) if await store.get(f"{number:064}") is not None]
        assert found == [0, 1, 2, 3, *range(34, 40)]
        stats = await store.stats()
        assert (stats.entries, stats.bytes) == (10, 10 * size)
        for number in range(40, 60):
            clock.now += 1
            await store.put(f"{number:064}", cached(bytes(1000), clock.now), "modest")
        found = [number for number in range(60) if await store.get(f"{number:064}") is not None]
        assert len(found) == 10
        assert sum(number >= 40 for number in found) == 5, "they share it equally once both need it"
        assert await store.clear() == 10
        await store.put(KEY, cached(created=clock.now), "modest")
        assert await store.get(KEY) is not None


async def test_an_index_of_an_earlier_version_is_used_further(tmp_path: Path) -> None:
    content = pack_entry(KEY, cached(bytes(1000)))
    (tmp_path / "aa").mkdir()
    (tmp_path / "aa" / KEY).write_bytes(content)
    with sqlite3.connect(tmp_path / INDEX) as index:
        index.executescript(EARLIER_SCHEMA)
        index.execute("INSERT INTO entries VALUES (?, ?, ?)", (KEY, len(content), 1.0))
    store = FileStore(tmp_path, limit=3 * len(content), lifetime=1000.0, clock=lambda: 1000.0)
    assert await store.get(KEY) == cached(bytes(1000))
    for number in range(3):
        await store.put(f"{number:064}", cached(bytes(1000)), f"caller {number}")
    assert (await store.stats()).entries == 3
    with sqlite3.connect(tmp_path / INDEX) as index:  # as that version does it, beside this one
        index.execute("INSERT INTO entries VALUES (?, ?, ?)", (OTHER, 1, 1.0))
        index.execute("DELETE FROM entries WHERE key = (SELECT key FROM entries WHERE key < 'a' LIMIT 1)")
    assert (await store.stats()).entries == 3
    await store.aclose()


EARLIER_SCHEMA = """
CREATE TABLE entries (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX by_use ON entries (used);
CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.bytes;
END;
CREATE TRIGGER resized AFTER UPDATE OF bytes ON entries BEGIN
    UPDATE totals SET bytes = bytes + NEW.bytes - OLD.bytes;
END;
CREATE TRIGGER dropped AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.bytes;
END;
"""


async def test_large_audio_stays_in_its_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path, limit=10**8, lifetime=100.0, clock=lambda: 1000.0)
    data = random.Random(1).randbytes(MAX_IN_MEMORY_BYTES + 1)
    await store.put(KEY, cached(data))
    found = await store.get(KEY)
    assert found is not None
    assert not found.data.in_memory
    assert await store.clear() == 1
    assert bytes(found.data) == data, "also once it is evicted"
    await store.put(KEY, cached(data))
    file = tmp_path / KEY[:2] / KEY
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert await store.get(KEY) is None
    await store.aclose()


async def test_audio_larger_than_the_limit_is_not_stored(opened: Opened) -> None:
    async with opened(limit=500) as store:
        await store.put(KEY, cached(b"small"))
        await store.put(OTHER, cached(bytes(1000)))
        assert await store.get(OTHER) is None
        assert await store.get(KEY) is not None


async def test_clear_deletes_every_entry(opened: Opened) -> None:
    async with opened() as store:
        for number in range(20):
            await store.put(f"{number:064}", cached())
        assert await store.clear() == 20
        assert await store.get(f"{3:064}") is None
        stats = await store.stats()
        assert (stats.entries, stats.bytes) == (0, 0)


@given(st.binary(max_size=200), st.data())
def test_no_altered_content_passes_the_checksum(data: bytes, draw: st.DataObject) -> None:
    whole = pack_entry(KEY, cached(data))
    assert unpack_entry(KEY, whole) == cached(data)
    altered = bytearray(whole)
    position = draw.draw(st.integers(0, len(whole) - 1))
    altered[position] ^= draw.draw(st.integers(1, 255))
    cut = whole[: draw.draw(st.integers(0, len(whole) - 1))]
    for broken, key in ((bytes(altered), KEY), (cut, KEY), (whole + b"x", KEY), (whole, OTHER)):
        with pytest.raises(ChecksumError):
            unpack_entry(key, broken)


async def test_files_that_were_altered_or_cut_are_never_served(tmp_path: Path) -> None:
    rng = random.Random(1)
    store = FileStore(tmp_path, limit=10**7, lifetime=100.0, clock=lambda: 1000.0)
    audio = {f"{number:064x}": rng.randbytes(rng.randrange(1, 3000)) for number in range(16**2, 16**2 + 150)}
    for key, data in audio.items():
        await store.put(key, cached(data))
    for file in tmp_path.glob("??/*"):
        content = bytearray(file.read_bytes())
        match rng.randrange(4):
            case 0:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            case 1:
                del content[rng.randrange(len(content)) :]
            case 2:
                content = bytearray(rng.randbytes(len(content)))
            case _:
                continue
        file.write_bytes(content)
    found = {key: bytes(answer.data) for key in audio if (answer := await store.get(key)) is not None}
    assert 10 < len(found) < 100
    assert found == {key: audio[key] for key in found}
    assert len(list(tmp_path.glob("??/*"))) == len(found), "the damaged files are deleted"
    assert (await store.stats()).entries == len(found)
    await store.aclose()


async def test_a_damaged_index_is_rebuilt_from_the_files(tmp_path: Path) -> None:
    async def again() -> FileStore:
        return FileStore(tmp_path, limit=10**6, lifetime=1e9, clock=time.time)

    store = await again()
    now = time.time()
    await store.put(KEY, cached(created=now))
    await store.aclose()
    (tmp_path / INDEX).write_bytes(b"no database, but long enough to look like one to a reader" * 100)
    store = await again()
    await store.put(OTHER, cached(created=now))
    assert await store.get(KEY) == cached(created=now)
    assert (await store.stats()).entries == 2
    await store.aclose()


async def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FileStore(tmp_path / "file", limit=10**6, lifetime=100.0)
    with pytest.raises(StoreError, match="cannot be used"):
        await store.put(KEY, cached())


WRITER = """
import asyncio, pathlib, random, sys, time
from balancer.audio.buffers import MemoryBuffer
from balancer.cache.file_store import FileStore
from balancer.cache.store import CachedAudio
async def main():
    store = FileStore(pathlib.Path(sys.argv[1]), limit=400_000, lifetime=1000.0)
    rng = random.Random()
    while True:
        number = rng.randrange(40)
        data = MemoryBuffer(bytes([number]) * rng.randrange(1, 50_000))
        await store.put(f"{number:064}", CachedAudio(data, 1.0, time.time()))
asyncio.run(main())
"""


async def test_writers_that_are_killed_leave_complete_files_and_a_complete_index(tmp_path: Path) -> None:
    for _ in range(6):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, env=environment()) for _ in "ab"
        ]
        wait_until(lambda: len(list(tmp_path.glob("??/*"))) >= 5)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    store = FileStore(tmp_path, limit=400_000, lifetime=1000.0)
    found = 0
    for number in range(40):
        answer = await store.get(f"{number:064}")
        if answer is not None:
            found += 1
            assert set(bytes(answer.data)) == {number}
    assert found >= 5
    files = {file.name for file in tmp_path.glob("??/*") if not file.name.startswith(".")}
    with sqlite3.connect(tmp_path / INDEX) as index:
        known = {key for (key,) in index.execute("SELECT key FROM entries")}
    assert files <= known
    await store.aclose()


class EvictedMeanwhile(MemoryBuffer):
    """Audio whose entry another process evicts while it is written to its file."""

    def __init__(self, data: bytes, folder: Path) -> None:
        super().__init__(data)
        self._folder = folder
        self.evictions = 0

    def read(self, start: int, size: int) -> bytes:
        asyncio.run(self._evict())
        return super().read(start, size)

    async def _evict(self) -> None:
        other = FileStore(self._folder, limit=10**6, lifetime=100.0)
        self.evictions += await other.clear()
        await other.aclose()


async def test_an_entry_that_is_evicted_while_its_file_is_written_is_in_the_index_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path, limit=10**6, lifetime=100.0, clock=lambda: 1000.0)
    data = EvictedMeanwhile(b"audio", tmp_path)
    await store.put(KEY, CachedAudio(data, 1.5, 1000.0))
    assert data.evictions == 1
    assert await store.get(KEY) is not None
    assert (await store.stats()).entries == 1
    assert await store.clear() == 1
    assert [file.name for file in tmp_path.glob("??/*")] == []
    await store.aclose()


async def test_an_incomplete_file_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "aa"
    folder.mkdir()
    for name, age in ((".old", 10_000), (".new", 1)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    store = FileStore(tmp_path, limit=10**6, lifetime=100.0)
    await store.stats()
    assert [file.name for file in folder.iterdir()] == [".new"]
    await store.aclose()


async def test_an_outage_of_redis(tmp_path: Path) -> None:
    with start_redis() as server:
        client = RedisClient(server.url)
        store = RedisStore(client, limit=10**6, lifetime=100.0)
        await store.put(KEY, cached(created=time.time()))
        server.stop()
        with pytest.raises(StoreError, match="Redis is unavailable"):
            await store.get(KEY)
        server.start()
        await until(lambda: client.unavailable_reason is None)
        assert await store.get(KEY) is not None, "Redis has persisted it"
        server.freeze()
        took = []
        for _ in range(20):
            before = time.monotonic()
            with pytest.raises(StoreError):
                await store.get(KEY)
            took.append(time.monotonic() - before)
        assert statistics.median(took) < TIMEOUT_SECONDS / 10, "only the first waits"
        server.thaw()
        await until(lambda: client.unavailable_reason is None)
        assert await store.get(KEY) is not None
        await client.aclose()


async def test_altered_audio_in_redis_is_not_served(redis: RedisServer) -> None:
    client = RedisClient(redis.url)
    store = RedisStore(client, limit=10**6, lifetime=100.0, clock=lambda: 1000.0)
    await store.put(KEY, cached())
    await client.raw.setrange(f"{PREFIX}{KEY}", 70, b"!")
    assert await store.get(KEY) is None
    await client.aclose()


async def test_a_redis_without_memory_refuses_commands_and_stays_available(redis: RedisServer) -> None:
    client = RedisClient(redis.url)
    store = RedisStore(client, limit=10**6, lifetime=100.0, clock=lambda: 1000.0)
    await store.put(KEY, cached())
    await client.raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreError, match="Redis refused a command"):
            await store.put(OTHER, cached())
        assert client.unavailable_reason is None
    finally:
        await client.raw.config_set("maxmemory", 0)
    assert await store.get(KEY) == cached()
    await client.aclose()


async def test_a_hit_needs_no_index(tmp_path: Path) -> None:
    store = FileStore(tmp_path, limit=10**6, lifetime=100.0, clock=lambda: 1000.0)
    await store.put(KEY, cached())
    await store.aclose()
    for file in tmp_path.glob(f"{INDEX}*"):
        file.unlink()
    (tmp_path / INDEX).mkdir()
    assert await FileStore(tmp_path, limit=10**6, lifetime=100.0, clock=lambda: 1000.0).get(KEY) == cached()
