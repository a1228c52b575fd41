"""A store of audio that several hosts share: entries in Redis, which expire by themselves, and an index by last use.

The store evicts entries by the index, because Redis' own eviction would also delete jobs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from balancer.cache.store import (
    HEADER_BYTES,
    CachedAudio,
    CacheStats,
    ChecksumError,
    StoreError,
    digest_of_caller,
    pack_entry,
    unpack_entry,
)
from balancer.redis.client import RedisClient, RedisUnavailableError, Script
from balancer.runtime.thread_pool import ThreadPool

PREFIX = "chorus:audio:"
USED = "chorus:audio-used"
"""Sorted set: cache keys by last use in Unix time."""
SIZES = "chorus:audio-sizes"
"""Hash: cache key to the entry's size in bytes."""
TOTAL = "chorus:audio-bytes"
"""Counter: size of all entries in bytes."""
OWNERS = "chorus:audio-owners"
"""Hash: cache key to the caller that the entry was made for, by its digest."""
OWNED = "chorus:audio-owned"
"""Sorted set: callers by the size of their entries in bytes. Each has a sorted set as USED of its own entries."""
MAX_ENTRY_BYTES = 32 * 2**20
"""Redis, and the client, hold an entry in memory as a whole."""


class RedisStore:
    """An AudioStore in Redis: stores audio for `lifetime` seconds within `limit` bytes. `clock` gives Unix time."""

    def __init__(
        self, redis: RedisClient, *, limit: int, lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._limit = limit
        self._lifetime = lifetime
        self._clock = clock
        self._pool = ThreadPool("cache", 2)
        load = partial(redis.load_script, "balancer.cache", "entries")
        self._put_script, self._get_script, self._clear_script = load("put"), load("get"), load("clear")

    async def get(self, cache_key: str) -> CachedAudio | None:
        """See AudioStore."""
        content = await self._run(self._get_script, cache_key, self._clock())
        if content is None:
            return None
        try:
            audio = await self._pool.run(lambda: unpack_entry(cache_key, content))
        except ChecksumError:
            return None  # the next `put` replaces it
        return audio if self._clock() - audio.created <= self._lifetime else None

    async def put(self, cache_key: str, audio: CachedAudio, caller: str = "") -> None:
        """See AudioStore. Entries above MAX_ENTRY_BYTES are not stored."""
        if HEADER_BYTES + len(audio.data) > min(self._limit, MAX_ENTRY_BYTES):
            return
        content = await self._pool.run(lambda: pack_entry(cache_key, audio))
        lifetime_ms = max(1, round(self._lifetime * 1000))
        await self._run(
            self._put_script, cache_key, content, self._clock(), lifetime_ms, self._limit, digest_of_caller(caller)
        )

    async def stats(self) -> CacheStats:
        """See AudioStore."""
        entries = await self._execute(lambda redis: redis.zcard(USED))
        size = await self._execute(lambda redis: redis.get(TOTAL))
        return CacheStats(entries, int(size or 0), self._limit, self._redis.address)

    async def clear(self) -> int:
        """See AudioStore."""
        deleted = 0
        while batch := await self._run(self._clear_script):
            deleted += batch
        return deleted

    async def aclose(self) -> None:
        """End the threads. Whoever opened the Redis client closes it."""
        self._pool.close()

    async def _run(self, script: Script, *arguments: Any) -> Any:
        return await self._execute(lambda _: script([USED, SIZES, TOTAL, OWNERS, OWNED], [PREFIX, *arguments]))

    async def _execute(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await self._redis.execute(work)
        except RedisUnavailableError as error:
            raise StoreError(str(error)) from error
