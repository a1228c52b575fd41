"""The rate limits, counted in this process and in a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from limits.aio.strategies import MovingWindowRateLimiter

from balancer.access.api_keys import ApiKey
from balancer.access.rate_limits import Quota, RateLimitRequest, RateLimits
from balancer.access.sqlite_counters import SqliteCounterStorage
from balancer.errors import LimitsUnavailableError, RateLimitedError
from balancer.redis.client import RedisClient
from scripts.support.redis_server import RedisServer
from tests.support.clock import Clock
from tests.support.harness import until
from tests.support.redis_server import start_redis

WITHOUT_LIMITS = "rate limits cannot be checked at the moment, and this server refuses requests without them"
"""The message for clients, which does not say why."""


@pytest.fixture(params=["here", "redis"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[RedisClient | None]:
    if request.param == "here":
        yield None
        return
    client = RedisClient(request.getfixturevalue("redis").url)
    await client.raw.flushall()
    yield client
    await client.aclose()


def limits(client: RedisClient | None = None, **how: Any) -> RateLimits:
    return RateLimits(redis=client, **how)


def request_of(
    quota: Quota, *, caller: str = "someone", characters: int = 10, within: float = 30.0
) -> RateLimitRequest:
    return RateLimitRequest(caller, quota, characters, asyncio.get_running_loop().time() + within)


@asynccontextmanager
async def admitted(rates: RateLimits, request: RateLimitRequest) -> AsyncIterator[dict[str, str]]:
    headers = await rates.enter(request)
    try:
        yield headers
    finally:
        rates.leave(request)


async def spend(rates: RateLimits, request: RateLimitRequest) -> dict[str, str]:
    async with admitted(rates, request) as headers:
        return headers


async def test_without_a_quota_nothing_is_counted() -> None:
    assert await spend(limits(), request_of(Quota())) == {}


async def test_requests_a_minute(client: RedisClient | None) -> None:
    rates, quota = limits(client), Quota(requests_per_minute=3)
    remaining = [(await spend(rates, request_of(quota)))["RateLimit-Remaining"] for _ in range(3)]
    assert remaining == ["2", "1", "0"]
    with pytest.raises(RateLimitedError, match="3 requests in 60 s") as refused:
        await spend(rates, request_of(quota))
    error = refused.value
    assert error.retry_after is not None
    assert 50 < error.retry_after <= 60
    assert error.headers["RateLimit-Limit"] == "3"
    assert error.headers["RateLimit-Remaining"] == "0"
    assert error.headers["RateLimit-Policy"] == "3;w=60"
    assert 50 < int(error.headers["RateLimit-Reset"]) <= 60
    await spend(rates, request_of(quota, caller="another"))


async def test_an_interval_between_requests(client: RedisClient | None) -> None:
    rates, quota = limits(client), Quota(interval_seconds=60)
    await spend(rates, request_of(quota))
    with pytest.raises(RateLimitedError, match="at least 60 s apart"):
        await spend(rates, request_of(quota))


async def test_characters_a_minute(client: RedisClient | None) -> None:
    rates, quota = limits(client), Quota(characters_per_minute=100)
    await spend(rates, request_of(quota, characters=60))
    with pytest.raises(RateLimitedError, match="100 characters in 60 s"):
        await spend(rates, request_of(quota, characters=60))
    await spend(rates, request_of(quota, characters=40))
    with pytest.raises(RateLimitedError, match="this text alone has 101") as refused:
        await spend(rates, request_of(quota, characters=101))
    assert refused.value.retry_after is None


async def test_characters_a_day(client: RedisClient | None) -> None:
    rates, quota = limits(client), Quota(characters_per_day=100)
    await spend(rates, request_of(quota, characters=100))
    with pytest.raises(RateLimitedError, match="100 characters in 86400 s"):
        await spend(rates, request_of(quota, characters=1))


async def test_a_refused_request_counts_against_no_limit(client: RedisClient | None) -> None:
    rates, quota = limits(client), Quota(requests_per_minute=2, characters_per_minute=100)
    await spend(rates, request_of(quota, characters=90))
    for _ in range(3):
        with pytest.raises(RateLimitedError, match="characters"):
            await spend(rates, request_of(quota, characters=90))
    await spend(rates, request_of(quota, characters=10))


@pytest.fixture
def stale_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check of a moving window passes: another host takes the last place between the check and the count."""

    async def passes(*_: object, **__: object) -> bool:
        return True

    monkeypatch.setattr(MovingWindowRateLimiter, "test", passes)


async def test_a_request_is_refused_if_another_host_has_taken_the_last_place(
    client: RedisClient | None, stale_checks: None
) -> None:
    rates, quota = limits(client), Quota(requests_per_minute=1)
    await spend(rates, request_of(quota))
    with pytest.raises(RateLimitedError, match="1 requests in 60 s") as refused:
        await spend(rates, request_of(quota))
    assert refused.value.retry_after is not None
    assert 50 < refused.value.retry_after <= 60


async def test_a_request_is_held_if_another_host_has_taken_the_last_place_and_counts_once(
    client: RedisClient | None, stale_checks: None
) -> None:
    rates, quota = limits(client, shape=True), Quota(requests_per_minute=10, interval_seconds=1)
    began = asyncio.get_running_loop().time()
    remaining = [(await spend(rates, request_of(quota)))["RateLimit-Remaining"] for _ in range(2)]
    assert asyncio.get_running_loop().time() - began >= 0.9
    assert remaining == ["9", "8"]


async def test_concurrent_requests_are_refused_and_admitted_again() -> None:
    rates, quota = limits(), Quota(concurrency=2)
    async with AsyncExitStack() as under_way:
        for _ in range(2):
            await under_way.enter_async_context(admitted(rates, request_of(quota)))
        with pytest.raises(RateLimitedError, match="2 of your requests are in progress"):
            await spend(rates, request_of(quota))
        await spend(rates, request_of(quota, caller="another"))
    await spend(rates, request_of(quota))


async def test_shaping_holds_a_request_until_its_turn(client: RedisClient | None) -> None:
    rates, quota = limits(client, shape=True), Quota(interval_seconds=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    ended: list[tuple[int, float]] = []

    async def one(number: int) -> None:
        await spend(rates, request_of(quota))
        ended.append((number, loop.time() - began))

    await asyncio.gather(*(one(number) for number in range(3)))
    assert [number for number, _ in ended] == [0, 1, 2]
    assert ended[1][1] >= 0.9
    assert ended[2][1] >= 1.9


async def test_shaping_refuses_a_request_that_would_be_held_past_its_deadline() -> None:
    rates, quota = limits(shape=True), Quota(requests_per_minute=1)
    await spend(rates, request_of(quota))
    with pytest.raises(RateLimitedError) as refused:
        await spend(rates, request_of(quota, within=5.0))
    assert refused.value.retry_after is not None


async def test_shaping_holds_concurrent_requests() -> None:
    rates, quota = limits(shape=True), Quota(concurrency=1)
    async with admitted(rates, request_of(quota)):
        waiting = asyncio.create_task(spend(rates, request_of(quota)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await waiting
    async with admitted(rates, request_of(quota)):
        with pytest.raises(RateLimitedError):
            await spend(rates, request_of(quota, within=0.05))


async def test_the_limits_of_a_key_replace_those_of_the_server() -> None:
    key = ApiKey(name="shop", digest="0" * 64, requests_per_minute=5)
    assert Quota(requests_per_minute=1, interval_seconds=2).of(key) == Quota(requests_per_minute=5, interval_seconds=2)
    assert Quota(1).of(None) == Quota(1)


async def test_two_hosts_share_one_count(redis: RedisServer) -> None:
    clients = [RedisClient(redis.url), RedisClient(redis.url)]
    one, other = map(limits, clients)
    quota = Quota(requests_per_minute=4)
    for rates in (one, other, one, other):
        await spend(rates, request_of(quota, caller="shared"))
    for rates in (one, other):
        with pytest.raises(RateLimitedError):
            await spend(rates, request_of(quota, caller="shared"))
    for client in clients:
        await client.aclose()


async def test_without_redis_requests_are_admitted_or_refused_as_set() -> None:
    quota = Quota(requests_per_minute=1)
    with start_redis() as server:
        client = RedisClient(server.url)
        open_, closed = RateLimits(redis=client, without_redis="open"), RateLimits(redis=client, without_redis="closed")
        await spend(open_, request_of(quota, caller="a"))
        server.stop()
        for _ in range(3):
            assert await spend(open_, request_of(quota, caller="a")) == {}
            with pytest.raises(LimitsUnavailableError) as refused:
                await spend(closed, request_of(quota, caller="b"))
            assert refused.value.message == WITHOUT_LIMITS, "the cause, with Redis's address, is for the log"
        server.start()
        await until(lambda: client.unavailable_reason is None)
        await spend(closed, request_of(quota, caller="b"))
        with pytest.raises(RateLimitedError):
            await spend(closed, request_of(quota, caller="b"))
        await client.aclose()


async def test_without_redis_each_host_counts_for_itself() -> None:
    quota = Quota(requests_per_minute=2, characters_per_day=1000)
    with start_redis() as server:
        client = RedisClient(server.url)
        rates = limits(client)
        server.stop()
        remaining = [(await spend(rates, request_of(quota)))["RateLimit-Remaining"] for _ in range(2)]
        assert remaining == ["1", "0"]
        with pytest.raises(RateLimitedError):
            await spend(rates, request_of(quota))
        await client.aclose()


@pytest.mark.parametrize("refusal", ["full", "read-only"])
async def test_limits_hold_where_redis_refuses_commands(refusal: str, caplog: pytest.LogCaptureFixture) -> None:
    quota = Quota(requests_per_minute=2)
    with start_redis() as server:
        client = RedisClient(server.url)
        raw: Any = client.raw
        if refusal == "full":
            await raw.config_set("maxmemory", 1)
        else:
            await raw.execute_command("REPLICAOF", "127.0.0.1", "1")
        local, closed = limits(client), limits(client, without_redis="closed")
        for _ in range(2):
            await spend(local, request_of(quota))
        for _ in range(3):
            with pytest.raises(RateLimitedError):
                await spend(local, request_of(quota))
            with pytest.raises(LimitsUnavailableError):
                await spend(closed, request_of(quota))
        assert client.unavailable_reason is None, "it is there"
        assert len([record for record in caplog.records if "Redis" in record.getMessage()]) == 1
        await client.aclose()


async def test_each_line_of_a_batch_is_a_request(client: RedisClient | None) -> None:
    rates, quota = limits(client), Quota(requests_per_minute=5)

    async def batch(lines: int) -> dict[str, str]:
        return await spend(rates, replace(request_of(quota), requests=lines))

    assert (await batch(4))["RateLimit-Remaining"] == "1"
    with pytest.raises(RateLimitedError, match="try again in"):
        await batch(2)
    with pytest.raises(RateLimitedError, match="this one has 6; send fewer at once") as refused:
        await batch(6)
    assert refused.value.retry_after is None
    await batch(1)


async def test_a_jump_of_the_clock_holds_nobody_up() -> None:
    clock = Clock(time.time() + 86_400)
    rates, quota = limits(wall_clock=clock), Quota(requests_per_minute=1)
    await spend(rates, request_of(quota))
    clock.now -= 86_400
    await spend(rates, request_of(quota))
    with pytest.raises(RateLimitedError) as refused:
        await spend(rates, request_of(quota))
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= 60


async def test_the_characters_of_a_day_survive_a_restart(tmp_path: Path) -> None:
    quota = Quota(characters_per_day=100, requests_per_minute=10)
    for remaining in ("60", "20"):  # each time as a new process would
        counters = SqliteCounterStorage(tmp_path / "counts")
        headers = await spend(limits(daily_counters=counters), request_of(quota, characters=40))
        assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("100", remaining)
        counters.close()
    counters = SqliteCounterStorage(tmp_path / "counts")
    with pytest.raises(RateLimitedError, match="100 characters in 86400 s") as refused:
        await spend(limits(daily_counters=counters), request_of(quota, characters=40))
    assert refused.value.retry_after is not None
    assert 86_000 < refused.value.retry_after <= 86_400
    await spend(limits(daily_counters=counters), request_of(quota, caller="another", characters=100))
    counters.close()


async def test_a_window_of_the_counters_ends(tmp_path: Path) -> None:
    now = [1000.0]
    counters = SqliteCounterStorage(tmp_path / "counts", lambda: now[0])
    assert await counters.incr("a", 10, 3) == 3
    assert await counters.incr("a", 10, 4) == 7
    assert (await counters.get("a"), await counters.get_expiry("a"), await counters.get("b")) == (7, 1010.0, 0)
    now[0] = 1010.0
    assert await counters.get("a") == 0
    assert await counters.incr("a", 10, 1) == 1
    await counters.clear("a")
    assert await counters.get("a") == 0
    assert await counters.check()
    await counters.incr("b", 10)
    assert await counters.reset() == 1
    counters.close()


async def test_without_counters_requests_are_admitted_or_refused_as_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    quota = Quota(characters_per_day=100)
    counters = SqliteCounterStorage(tmp_path / "file" / "counts")
    assert await spend(limits(daily_counters=counters, without_redis="open"), request_of(quota)) == {}
    caplog.clear()
    closed = limits(daily_counters=counters, without_redis="closed")
    for _ in range(2):
        with pytest.raises(LimitsUnavailableError) as refused:
            await spend(closed, request_of(quota))
        assert refused.value.message == WITHOUT_LIMITS
    assert len(caplog.records) == 1
    assert "rate limits cannot be checked: " in caplog.text
