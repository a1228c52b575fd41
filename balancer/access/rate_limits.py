"""Rate limits: requests a minute, an interval between requests, characters a minute and a day, requests at once.

Each holds for an API key, or for an address where no key came. What is over a limit is refused, or held until its turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import ceil
from weakref import WeakValueDictionary

from limits import (
    RateLimitItem,
    RateLimitItemPerDay,
    RateLimitItemPerMinute,
    RateLimitItemPerSecond,
)
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)
from limits.errors import StorageError

from balancer.access.api_keys import ApiKey
from balancer.access.sqlite_counters import SqliteCounterStorage
from balancer.errors import LimitsUnavailableError, RateLimitedError
from balancer.redis_client import RedisClient

log = logging.getLogger(__name__)

SHORTEST_HOLD = 0.01
"""Between two looks at a limit while a request is held."""


@dataclass(frozen=True)
class Quota:
    """What one caller may do; None: without limit."""

    requests_per_minute: int | None = None
    interval_seconds: int | None = None
    characters_per_minute: int | None = None
    characters_per_day: int | None = None
    concurrency: int | None = None

    def of(self, key: ApiKey | None) -> Quota:
        """The same for the owner of a key: what the key says goes before it."""
        if key is None:
            return self
        own = {name: value for name in vars(self) if (value := getattr(key, name)) is not None}
        return replace(self, **own)


@dataclass(frozen=True)
class RateLimitRequest:
    """What a request asks of its caller's quota. `deadline` is on the event loop's clock."""

    caller: str
    quota: Quota
    characters: int
    deadline: float


@dataclass(frozen=True)
class _Rule:
    """One limit as it applies to one request, which counts for `cost`."""

    limiter: RateLimiter
    item: RateLimitItem
    kind: str
    cost: int


class RateLimits:
    """Counts in this process, or in Redis for several hosts; what is under way is counted by each host for itself."""

    def __init__(
        self,
        *,
        shape: bool = False,
        redis: RedisClient | None = None,
        open_without_redis: bool = True,
        daily_counters: SqliteCounterStorage | None = None,
    ) -> None:
        """`shape` holds requests instead of refusing them. `daily_counters` count over a day, unless Redis does."""
        self._daily_counters = daily_counters
        self._shape = shape
        self._redis = redis
        self._open = open_without_redis
        # Its background task needs a running loop: made with the first request.
        self._storage: MemoryStorage | RedisStorage | None = None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way: Counter[str] = Counter()

    @asynccontextmanager
    async def admit(self, request: RateLimitRequest) -> AsyncIterator[dict[str, str]]:
        """A block for the request; it gives the headers that tell the caller where they stand.

        Raises RateLimitedError, LimitsUnavailableError.
        """
        quota, caller = request.quota, request.caller
        if quota == Quota():
            yield {}
            return
        turn = self._turns.setdefault(caller, asyncio.Lock())
        async with turn:  # one caller's requests are held in the order of their arrival
            await self._await_slot(request)
            headers = await self._spend(request)
            self._under_way[caller] += 1
        try:
            yield headers
        finally:
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]

    async def _await_slot(self, request: RateLimitRequest) -> None:
        most = request.quota.concurrency
        while most is not None and self._under_way[request.caller] >= most:
            if not self._shape or _now() >= request.deadline:
                raise RateLimitedError(
                    f"{most} requests of yours are under way, which is the most at once; wait for one to end",
                    code="concurrency_limit_exceeded",
                    retry_after=1.0,
                    headers={"RateLimit-Limit": str(most), "RateLimit-Remaining": "0"},
                )
            await asyncio.sleep(SHORTEST_HOLD)

    async def _spend(self, request: RateLimitRequest) -> dict[str, str]:
        """Count the request against every limit, once none is in its way."""
        if self._redis is not None and self._redis.unavailable_reason is not None:
            return self._without_redis(self._redis.unavailable_reason)
        try:
            rules = self._rules(request)
            while (full := await self._first_full(request.caller, rules)) is not None:
                await self._hold(request, *full)
            for rule in rules:
                await rule.limiter.hit(rule.item, request.caller, cost=rule.cost)
            return await self._headers(request.caller, rules)
        except StorageError as error:
            if self._redis is not None:
                self._redis.mark_unavailable(str(error.storage_error))
            log.warning("rate limits cannot be checked: %s", error.storage_error)
            return self._without_redis(str(error.storage_error))

    async def _first_full(self, caller: str, rules: Sequence[_Rule]) -> tuple[_Rule, float] | None:
        """The rule that the request would break for longest, and for how many seconds."""
        full = []
        for rule in rules:
            if not await rule.limiter.test(rule.item, caller, cost=rule.cost):
                stats = await rule.limiter.get_window_stats(rule.item, caller)
                full.append((rule, max(0.0, stats.reset_time - time.time())))
        return max(full, key=lambda found: found[1], default=None)

    async def _hold(self, request: RateLimitRequest, rule: _Rule, seconds: float) -> None:
        """Wait until the rule lets the request pass. Raises RateLimitedError where it may not wait, or for so long."""
        never = rule.cost > rule.item.amount
        if not self._shape or never or _now() + seconds > request.deadline:
            raise _refusal(rule, None if never else seconds)
        await asyncio.sleep(max(seconds, SHORTEST_HOLD))

    async def _headers(self, caller: str, rules: Sequence[_Rule]) -> dict[str, str]:
        """Of the limit that is nearest."""
        nearest: tuple[float, dict[str, str]] | None = None
        for rule in rules:
            stats = await rule.limiter.get_window_stats(rule.item, caller)
            share = stats.remaining / rule.item.amount
            if rule.kind != "interval" and (nearest is None or share < nearest[0]):
                nearest = share, _standing(rule, stats.remaining, stats.reset_time - time.time())
        return nearest[1] if nearest is not None else {}

    def _rules(self, request: RateLimitRequest) -> list[_Rule]:
        quota, characters = request.quota, request.characters
        storage = self._open_storage()
        moving, sliding = MovingWindowRateLimiter(storage), SlidingWindowCounterRateLimiter(storage)
        rules = []
        if quota.requests_per_minute is not None:
            rules.append(_Rule(moving, RateLimitItemPerMinute(quota.requests_per_minute), "requests", 1))
        if quota.interval_seconds is not None:
            rules.append(_Rule(moving, RateLimitItemPerSecond(1, quota.interval_seconds), "interval", 1))
        if quota.characters_per_minute is not None:
            minute = RateLimitItemPerMinute(quota.characters_per_minute, namespace="CHARACTERS")
            rules.append(_Rule(sliding, minute, "characters", characters))
        if quota.characters_per_day is not None:
            day = RateLimitItemPerDay(quota.characters_per_day, namespace="CHARACTERS")
            rules.append(_Rule(FixedWindowRateLimiter(self._daily_counters or storage), day, "characters", characters))
        return rules

    def _open_storage(self) -> MemoryStorage | RedisStorage:
        if self._storage is None:
            self._storage = MemoryStorage() if self._redis is None else _redis_storage(self._redis)
        return self._storage

    def _without_redis(self, why: str) -> dict[str, str]:
        if self._open:
            return {}
        raise LimitsUnavailableError(
            f"rate limits cannot be checked, and this server serves nothing without them: {why}", retry_after=5.0
        )


def _redis_storage(redis: RedisClient) -> RedisStorage:
    """Shares the connections of `redis`."""
    return RedisStorage(
        f"async+{redis.url}",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="chorus:rates",
        connection_pool=redis.raw.connection_pool,
    )


def _refusal(rule: _Rule, seconds: float | None) -> RateLimitedError:
    item = rule.item
    window = item.get_expiry()
    if rule.kind == "interval":
        limit = f"at least {window} s must pass between two requests"
    else:
        limit = f"the limit is {item.amount} {rule.kind} in {window} s"
    advice = (
        f"try again in {max(1, ceil(seconds))} s"
        if seconds is not None
        else f"this text alone has {rule.cost}; send a shorter one"
    )
    return RateLimitedError(f"{limit}; {advice}", retry_after=seconds, headers=_standing(rule, 0, seconds or 0.0))


def _standing(rule: _Rule, remaining: int, seconds: float) -> dict[str, str]:
    """The fields of the IETF's draft on rate limit headers, as of its sixth version: what clients read today."""
    return {
        "RateLimit-Limit": str(rule.item.amount),
        "RateLimit-Remaining": str(remaining),
        "RateLimit-Reset": str(max(0, ceil(seconds))),
        "RateLimit-Policy": f"{rule.item.amount};w={rule.item.get_expiry()}",
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
