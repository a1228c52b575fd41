"""Rate limits: requests per minute, interval between requests, characters per minute and per day, concurrent requests.

Each applies to an API key, or to the client's address where a request has no key. A request over a limit is refused, or
held until its turn comes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Literal
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

if TYPE_CHECKING:
    from balancer.redis.client import RedisClient

log = logging.getLogger(__name__)

WithoutRedis = Literal["local", "open", "closed"]
"""The policy while the counters cannot be used, a value of `CHORUS_RATE_WITHOUT_REDIS`."""

CLOCK_JUMP_SECONDS = 2.0
"""A difference between the wall clock and the monotonic one, of which counts of the last minute would be wrong."""

MIN_HOLD_SECONDS = 0.01
"""Minimum pause between two checks of a limit while a request is held."""


@dataclass(frozen=True)
class Quota:
    """The limits of one caller; None: no limit."""

    requests_per_minute: int | None = None
    interval_seconds: int | None = None
    characters_per_minute: int | None = None
    characters_per_day: int | None = None
    concurrency: int | None = None

    def of(self, key: ApiKey | None) -> Quota:
        """The quota of an API key's owner: the key's own limits replace those of this quota."""
        if key is None:
            return self
        own = {name: value for name in vars(self) if (value := getattr(key, name)) is not None}
        return replace(self, **own)


UNLIMITED = Quota()


@dataclass(frozen=True)
class RateLimitRequest:
    """A request as its caller's quota counts it. It may be held until `deadline`, on the event loop's clock."""

    caller: str
    quota: Quota
    characters: int
    deadline: float
    requests: int = 1
    """Number of requests it counts as: the lines of a batch."""


@dataclass(frozen=True)
class _Rule:
    """One limit as it applies to one request, which adds `cost` to its counter."""

    limiter: RateLimiter
    item: RateLimitItem
    kind: str
    cost: int


class RateLimits:
    """Counts requests in this process, or in Redis for several hosts. Concurrent requests are counted per host."""

    def __init__(
        self,
        *,
        shape: bool = False,
        redis: RedisClient | None = None,
        without_redis: WithoutRedis = "local",
        daily_counters: SqliteCounterStorage | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Without Redis, requests are counted in memory, and those of a day in `daily_counters` if given.

        `shape` holds requests over a limit instead of refusing them. `without_redis` says what happens while the
        counters cannot be used: requests are counted in memory, all of them are admitted, or all are refused.
        """
        self._daily_counters = daily_counters
        self._shape = shape
        self._redis = redis
        self._without_redis = without_redis
        self._wall_clock = wall_clock
        # Opened by the first request: their background tasks need a running event loop.
        self._shared: RedisStorage | None = None
        self._local: MemoryStorage | None = None
        self._clock_offset: float | None = None
        self._reported = False
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._in_flight: Counter[str] = Counter()

    async def enter(self, request: RateLimitRequest) -> dict[str, str]:
        """Admit a request until `leave` is called with it. Returns rate limit headers for its response.

        Raises RateLimitedError, LimitsUnavailableError.
        """
        quota, caller = request.quota, request.caller
        if quota == UNLIMITED:
            return {}
        turn = self._turns.setdefault(caller, asyncio.Lock())
        async with turn:  # one caller's requests are held in the order of their arrival
            await self._await_concurrency(request)
            headers = await self._spend(request)
            self._in_flight[caller] += 1
        return headers

    def leave(self, request: RateLimitRequest) -> None:
        """A request that was admitted has ended."""
        if request.quota == UNLIMITED:
            return
        self._in_flight[request.caller] -= 1
        if not self._in_flight[request.caller]:
            del self._in_flight[request.caller]

    async def _await_concurrency(self, request: RateLimitRequest) -> None:
        limit = request.quota.concurrency
        while limit is not None and self._in_flight[request.caller] >= limit:
            if not self._shape or _now() >= request.deadline:
                raise RateLimitedError(
                    f"{limit} of your requests are in progress, which is the limit; wait for one to end",
                    code="concurrency_limit_exceeded",
                    retry_after=1.0,
                    headers={"RateLimit-Limit": str(limit), "RateLimit-Remaining": "0"},
                )
            await asyncio.sleep(MIN_HOLD_SECONDS)

    async def _spend(self, request: RateLimitRequest) -> dict[str, str]:
        """Count the request towards every limit, once it is within all of them."""
        if self._redis is not None and self._redis.unavailable_reason is not None:
            return await self._spend_without_counters(request)
        try:
            headers = await self._spend_on(request, self._rules(request, self._storage(), self._daily_counters))
        except StorageError as error:
            if self._redis is not None:
                self._redis.report(error.storage_error)
            elif not self._reported:
                self._reported = True
                log.warning("rate limits cannot be checked: %s", error.storage_error)
            return await self._spend_without_counters(request)
        self._reported = False
        return headers

    async def _spend_on(self, request: RateLimitRequest, rules: list[_Rule]) -> dict[str, str]:
        uncounted = rules
        while uncounted:
            exceeded = await self._exceeded(request.caller, uncounted)
            if not exceeded:
                uncounted = await self._count(request.caller, uncounted)
                # Other hosts count as well: one of them may have used up a limit since it was checked.
                exceeded = uncounted[:1]
            if exceeded:
                await self._hold(request, exceeded)
        return await self._headers(request.caller, rules)

    async def _spend_without_counters(self, request: RateLimitRequest) -> dict[str, str]:
        if self._without_redis == "local":
            return await self._spend_on(request, self._rules(request, self._memory(), None))
        if self._without_redis == "open":
            return {}
        raise LimitsUnavailableError(
            "rate limits cannot be checked at the moment, and this server refuses requests without them",
            retry_after=5.0,
        )

    async def _exceeded(self, caller: str, rules: Sequence[_Rule]) -> list[_Rule]:
        """The rules that the request would break."""
        return [rule for rule in rules if not await rule.limiter.test(rule.item, caller, cost=rule.cost)]

    async def _count(self, caller: str, rules: list[_Rule]) -> list[_Rule]:
        """Count the request towards one rule after another, until one refuses it; the rules still to be counted."""
        for index, rule in enumerate(rules):
            if not await rule.limiter.hit(rule.item, caller, cost=rule.cost):
                return rules[index:]
        return []

    async def _hold(self, request: RateLimitRequest, exceeded: Sequence[_Rule]) -> None:
        """Wait until the last of the exceeded rules resets. Raises RateLimitedError where the request may not wait."""
        resets = []
        for rule in exceeded:
            stats = await rule.limiter.get_window_stats(rule.item, request.caller)
            resets.append((self._seconds_until(stats.reset_time, rule), rule))
        seconds, rule = max(resets, key=lambda reset: reset[0])
        never = rule.cost > rule.item.amount
        if not self._shape or never or _now() + seconds > request.deadline:
            raise _refusal(rule, None if never else seconds)
        await asyncio.sleep(max(seconds, MIN_HOLD_SECONDS))

    async def _headers(self, caller: str, rules: Sequence[_Rule]) -> dict[str, str]:
        """Rate limit headers of the rule that has the smallest share of its limit left."""
        nearest: tuple[float, dict[str, str]] | None = None
        for rule in rules:
            stats = await rule.limiter.get_window_stats(rule.item, caller)
            share = stats.remaining / rule.item.amount
            if rule.kind != "interval" and (nearest is None or share < nearest[0]):
                nearest = share, _limit_headers(rule, stats.remaining, self._seconds_until(stats.reset_time, rule))
        return nearest[1] if nearest is not None else {}

    def _seconds_until(self, reset_time: float, rule: _Rule) -> float:
        """Seconds until a window ends: at most its length, whatever the clock was when it began."""
        return min(float(rule.item.get_expiry()), max(0.0, reset_time - self._wall_clock()))

    def _rules(
        self,
        request: RateLimitRequest,
        storage: MemoryStorage | RedisStorage,
        daily_counters: SqliteCounterStorage | None,
    ) -> list[_Rule]:
        quota, characters = request.quota, request.characters
        moving, sliding = MovingWindowRateLimiter(storage), SlidingWindowCounterRateLimiter(storage)
        rules = []
        if quota.requests_per_minute is not None:
            rules.append(_Rule(moving, RateLimitItemPerMinute(quota.requests_per_minute), "requests", request.requests))
        if quota.interval_seconds is not None:
            rules.append(_Rule(moving, RateLimitItemPerSecond(1, quota.interval_seconds), "interval", request.requests))
        if quota.characters_per_minute is not None:
            minute = RateLimitItemPerMinute(quota.characters_per_minute, namespace="CHARACTERS")
            rules.append(_Rule(sliding, minute, "characters", characters))
        if quota.characters_per_day is not None:
            day = RateLimitItemPerDay(quota.characters_per_day, namespace="CHARACTERS")
            rules.append(_Rule(FixedWindowRateLimiter(daily_counters or storage), day, "characters", characters))
        return rules

    def _storage(self) -> MemoryStorage | RedisStorage:
        if self._redis is None:
            return self._memory()
        if self._shared is None:
            self._shared = _redis_storage(self._redis)
        return self._shared

    def _memory(self) -> MemoryStorage:
        """Counts in this process. They begin anew when the wall clock has jumped: they are times of that clock."""
        offset = self._wall_clock() - time.monotonic()
        if self._clock_offset is None or abs(offset - self._clock_offset) > CLOCK_JUMP_SECONDS:
            self._local = None
        self._clock_offset = offset
        if self._local is None:
            self._local = MemoryStorage()
        return self._local


def _redis_storage(redis: RedisClient) -> RedisStorage:
    """A storage of the `limits` library over the connections of `redis`."""
    return RedisStorage(
        "async+redis://",  # its connections are given
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="chorus:rates",
        connection_pool=redis.raw.connection_pool,
    )


def _refusal(rule: _Rule, seconds: float | None) -> RateLimitedError:
    item = rule.item
    window = item.get_expiry()
    if rule.kind == "interval":
        limit = f"requests must be at least {window} s apart"
    else:
        limit = f"the limit is {item.amount} {rule.kind} in {window} s"
    if seconds is not None:
        advice = f"try again in {max(1, ceil(seconds))} s"
    elif rule.kind == "characters":
        advice = f"this text alone has {rule.cost}; send a shorter text"
    else:
        advice = f"each line of a batch is a request, and this one has {rule.cost}; send fewer at once"
    return RateLimitedError(f"{limit}; {advice}", retry_after=seconds, headers=_limit_headers(rule, 0, seconds or 0.0))


def _limit_headers(rule: _Rule, remaining: int, seconds: float) -> dict[str, str]:
    """Headers of the IETF draft on rate limit headers, version 06 (draft-ietf-httpapi-ratelimit-headers-06)."""
    return {
        "RateLimit-Limit": str(rule.item.amount),
        "RateLimit-Remaining": str(remaining),
        "RateLimit-Reset": str(max(0, ceil(seconds))),
        "RateLimit-Policy": f"{rule.item.amount};w={rule.item.get_expiry()}",
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
