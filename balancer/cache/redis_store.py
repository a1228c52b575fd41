"""The store that several hosts share: sealed audio in Redis, which expires by itself, and an index by last use.

The index is needed because Redis' own eviction would not stop at audio: jobs lie there, too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from balancer.cache.store import CachedAudio, ChecksumError, Stats, StoreError, pack_entry, unpack_entry
from balancer.redis_client import RedisClient, RedisUnavailableError

PREFIX = "chorus:audio:"
USED = "chorus:audio-used"
"""Sorted set of keys by when they were used last."""
SIZES = "chorus:audio-sizes"
"""Hash of key to bytes."""
TOTAL = "chorus:audio-bytes"

_PUT = """
local used, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local prefix, key, content, now, lifetime, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
redis.call('SET', prefix .. key, content, 'PX', lifetime)
redis.call('INCRBY', total, #content - tonumber(redis.call('HGET', sizes, key) or 0))
redis.call('HSET', sizes, key, #content)
redis.call('ZADD', used, now, key)
while tonumber(redis.call('GET', total)) > limit do
    local oldest = redis.call('ZPOPMIN', used)[1]
    if not oldest then break end
    redis.call('DEL', prefix .. oldest)
    redis.call('DECRBY', total, tonumber(redis.call('HGET', sizes, oldest) or 0))
    redis.call('HDEL', sizes, oldest)
end
"""

_GET = """
local used, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local prefix, key, now = ARGV[1], ARGV[2], ARGV[3]
local content = redis.call('GET', prefix .. key)
if content then
    redis.call('ZADD', used, 'XX', now, key)
    return content
end
local size = redis.call('HGET', sizes, key)
if size then
    redis.call('DECRBY', total, size)
    redis.call('HDEL', sizes, key)
    redis.call('ZREM', used, key)
end
return false
"""

_CLEAR = """
local used, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local prefix = ARGV[1]
local keys = redis.call('ZPOPMIN', used, 500)
for index = 1, #keys, 2 do
    redis.call('DEL', prefix .. keys[index])
    redis.call('DECRBY', total, tonumber(redis.call('HGET', sizes, keys[index]) or 0))
    redis.call('HDEL', sizes, keys[index])
end
return #keys / 2
"""


class RedisStore:
    """Keeps audio for `lifetime` seconds, within `limit` bytes. `clock` gives Unix time."""

    def __init__(
        self, redis: RedisClient, *, limit: int, lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._limit = limit
        self._lifetime = lifetime
        self._clock = clock
        self._put, self._get, self._clear = (redis.raw.register_script(script) for script in (_PUT, _GET, _CLEAR))

    async def get(self, key: str) -> CachedAudio | None:
        """See AudioStore."""
        content = await self._run(self._get, key, self._clock())
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
            await self._run(self._put, key, content, self._clock(), milliseconds, self._limit)

    async def stats(self) -> Stats:
        """See AudioStore."""
        entries = await self._ask(lambda redis: redis.zcard(USED))
        size = await self._ask(lambda redis: redis.get(TOTAL))
        return Stats(entries, int(size or 0), self._limit, self._redis.address)

    async def clear(self) -> int:
        """See AudioStore."""
        dropped = 0
        while some := await self._run(self._clear):
            dropped += some
        return dropped

    async def aclose(self) -> None:
        """Does nothing: whoever opened the Redis client closes it."""

    async def _run(self, script: Any, *arguments: Any) -> Any:
        return await self._ask(lambda _: script([USED, SIZES, TOTAL], [PREFIX, *arguments]))

    async def _ask(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await self._redis.execute(work)
        except RedisUnavailableError as error:
            raise StoreError(str(error)) from error
