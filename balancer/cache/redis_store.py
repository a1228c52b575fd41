"""The store that several hosts share: sealed audio in Redis, which expires by itself, and an index by last use.

The index is needed because Redis' own eviction would not stop at audio: jobs lie there, too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from balancer.cache.store import CachedAudio, ChecksumError, Stats, StoreError, pack_entry, unpack_entry
from balancer.redis_client import RedisClient, RedisUnavailableError, Script

PREFIX = "chorus:audio:"
USED = "chorus:audio-used"
"""Sorted set of keys by when they were used last."""
SIZES = "chorus:audio-sizes"
"""Hash of key to bytes."""
TOTAL = "chorus:audio-bytes"


class RedisStore:
    """Keeps audio for `lifetime` seconds, within `limit` bytes. `clock` gives Unix time."""

    def __init__(
        self, redis: RedisClient, *, limit: int, lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._limit = limit
        self._lifetime = lifetime
        self._clock = clock
        load = partial(redis.load_script, "balancer.cache")
        self._put_script, self._get_script, self._clear_script = load("put"), load("get"), load("clear")

    async def get(self, key: str) -> CachedAudio | None:
        """See AudioStore."""
        content = await self._run(self._get_script, key, self._clock())
        if content is None:
            return None
        try:
            kept = unpack_entry(key, content)
        except ChecksumError:
            return None  # the next that is made takes its place
        return kept if self._clock() - kept.created <= self._lifetime else None

    async def put(self, key: str, kept: CachedAudio) -> None:
        """See AudioStore."""
        content = pack_entry(key, kept)
        if len(content) <= self._limit:
            milliseconds = max(1, round(self._lifetime * 1000))
            await self._run(self._put_script, key, content, self._clock(), milliseconds, self._limit)

    async def stats(self) -> Stats:
        """See AudioStore."""
        entries = await self._execute(lambda redis: redis.zcard(USED))
        size = await self._execute(lambda redis: redis.get(TOTAL))
        return Stats(entries, int(size or 0), self._limit, self._redis.address)

    async def clear(self) -> int:
        """See AudioStore."""
        dropped = 0
        while some := await self._run(self._clear_script):
            dropped += some
        return dropped

    async def aclose(self) -> None:
        """Does nothing: whoever opened the Redis client closes it."""

    async def _run(self, script: Script, *arguments: Any) -> Any:
        return await self._execute(lambda _: script([USED, SIZES, TOTAL], [PREFIX, *arguments]))

    async def _execute(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await self._redis.execute(work)
        except RedisUnavailableError as error:
            raise StoreError(str(error)) from error
