"""The limits, counted in this process and in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from balancer.access.api_keys import ApiKey
from balancer.access.rate_limits import Demand, Quota, RateLimits
from balancer.access.sqlite_counters import KeptCounts
from balancer.errors import LimitsUnavailableError, RateLimitedError
from balancer.redis_client import RedisLink
from tests.support.redis_server import RedisServer, start_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with start_redis() as server:
        yield server


@pytest.fixture(params=["here", "redis"])
async def link(request: pytest.FixtureRequest) -> AsyncIterator[RedisLink | None]:
    if request.param == "here":
        yield None
        return
    link = RedisLink(request.getfixturevalue("redis").url)
    await link.client.flushall()
    yield link
    await link.aclose()


def limits(link: RedisLink | None = None, **how: Any) -> RateLimits:
    return RateLimits(link=link, **how)


def demand(quota: Quota, *, caller: str = "someone", characters: int = 10, within: float = 30.0) -> Demand:
    return Demand(caller, quota, characters, asyncio.get_running_loop().time() + within)


async def spend(rates: RateLimits, wanted: Demand) -> dict[str, str]:
    async with rates.admit(wanted) as headers:
        return headers


async def test_without_a_quota_nothing_is_counted() -> None:
    assert await spend(limits(), demand(Quota())) == {}


async def test_requests_a_minute(link: RedisLink | None) -> None:
    rates, quota = limits(link), Quota(requests_per_minute=3)
    remaining = [(await spend(rates, demand(quota)))["RateLimit-Remaining"] for _ in range(3)]
    assert remaining == ["2", "1", "0"]
    with pytest.raises(RateLimitedError, match="3 requests in 60 s") as refused:
        await spend(rates, demand(quota))
    error = refused.value
    assert error.retry_after is not None
    assert 50 < error.retry_after <= 60
    assert error.headers["RateLimit-Limit"] == "3"
    assert error.headers["RateLimit-Remaining"] == "0"
    assert error.headers["RateLimit-Policy"] == "3;w=60"
    assert 50 < int(error.headers["RateLimit-Reset"]) <= 60
    await spend(rates, demand(quota, caller="another"))


async def test_an_interval_between_requests(link: RedisLink | None) -> None:
    rates, quota = limits(link), Quota(interval_seconds=2)
    await spend(rates, demand(quota))
    with pytest.raises(RateLimitedError, match="at least 2 s must pass"):
        await spend(rates, demand(quota))


async def test_characters_a_minute(link: RedisLink | None) -> None:
    rates, quota = limits(link), Quota(characters_per_minute=100)
    await spend(rates, demand(quota, characters=60))
    with pytest.raises(RateLimitedError, match="100 characters in 60 s"):
        await spend(rates, demand(quota, characters=60))
    await spend(rates, demand(quota, characters=40))
    with pytest.raises(RateLimitedError, match="this text alone has 101") as refused:
        await spend(rates, demand(quota, characters=101))
    assert refused.value.retry_after is None


async def test_characters_a_day(link: RedisLink | None) -> None:
    rates, quota = limits(link), Quota(characters_per_day=100)
    await spend(rates, demand(quota, characters=100))
    with pytest.raises(RateLimitedError, match="100 characters in 86400 s"):
        await spend(rates, demand(quota, characters=1))


async def test_a_refused_request_counts_against_no_limit(link: RedisLink | None) -> None:
    rates, quota = limits(link), Quota(requests_per_minute=2, characters_per_minute=100)
    await spend(rates, demand(quota, characters=90))
    for _ in range(3):
        with pytest.raises(RateLimitedError, match="characters"):
            await spend(rates, demand(quota, characters=90))
    await spend(rates, demand(quota, characters=10))


async def test_requests_at_once_are_refused_and_let_in_again() -> None:
    rates, quota = limits(), Quota(concurrency=2)
    async with AsyncExitStack() as under_way:
        for _ in range(2):
            await under_way.enter_async_context(rates.admit(demand(quota)))
        with pytest.raises(RateLimitedError, match="2 requests of yours are under way"):
            await spend(rates, demand(quota))
        await spend(rates, demand(quota, caller="another"))
    await spend(rates, demand(quota))


async def test_shaping_holds_a_request_until_its_turn(link: RedisLink | None) -> None:
    rates, quota = limits(link, shape=True), Quota(interval_seconds=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    ended: list[tuple[int, float]] = []

    async def one(number: int) -> None:
        await spend(rates, demand(quota))
        ended.append((number, loop.time() - began))

    await asyncio.gather(*(one(number) for number in range(3)))
    assert [number for number, _ in ended] == [0, 1, 2]
    assert ended[1][1] >= 0.9
    assert ended[2][1] >= 1.9


async def test_shaping_refuses_what_its_deadline_does_not_allow() -> None:
    rates, quota = limits(shape=True), Quota(requests_per_minute=1)
    await spend(rates, demand(quota))
    with pytest.raises(RateLimitedError) as refused:
        await spend(rates, demand(quota, within=5.0))
    assert refused.value.retry_after is not None


async def test_shaping_holds_what_is_too_much_at_once() -> None:
    rates, quota = limits(shape=True), Quota(concurrency=1)
    async with rates.admit(demand(quota)):
        waiting = asyncio.create_task(spend(rates, demand(quota)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await waiting
    async with rates.admit(demand(quota)):
        with pytest.raises(RateLimitedError):
            await spend(rates, demand(quota, within=0.05))


async def test_a_key_has_its_own_quota_before_the_servers() -> None:
    key = ApiKey(name="shop", digest="0" * 64, requests_per_minute=5)
    assert Quota(requests_per_minute=1, interval_seconds=2).of(key) == Quota(requests_per_minute=5, interval_seconds=2)
    assert Quota(1).of(None) == Quota(1)


async def test_two_hosts_share_one_count(redis: RedisServer) -> None:
    links = [RedisLink(redis.url), RedisLink(redis.url)]
    one, other = map(limits, links)
    quota = Quota(requests_per_minute=4)
    for rates in (one, other, one, other):
        await spend(rates, demand(quota, caller="shared"))
    for rates in (one, other):
        with pytest.raises(RateLimitedError):
            await spend(rates, demand(quota, caller="shared"))
    for link in links:
        await link.aclose()


async def test_redis_gone_is_open_or_closed_as_set() -> None:
    quota = Quota(requests_per_minute=1)
    with start_redis() as server:
        link = RedisLink(server.url)
        open_, closed = RateLimits(link=link), RateLimits(link=link, open_without_redis=False)
        await spend(open_, demand(quota, caller="a"))
        server.stop()
        for _ in range(3):
            assert await spend(open_, demand(quota, caller="a")) == {}
            with pytest.raises(LimitsUnavailableError, match="rate limits cannot be checked"):
                await spend(closed, demand(quota, caller="b"))
        server.start()
        while link.gone is not None:
            await asyncio.sleep(0.05)
        await spend(closed, demand(quota, caller="b"))
        with pytest.raises(RateLimitedError):
            await spend(closed, demand(quota, caller="b"))
        await link.aclose()


async def test_a_day_s_characters_outlive_a_restart(tmp_path: Path) -> None:
    quota = Quota(characters_per_day=100, requests_per_minute=10)
    for remaining in ("60", "20"):  # each time in a process of its own, as it were
        kept = KeptCounts(tmp_path / "counts")
        headers = await spend(limits(kept=kept), demand(quota, characters=40))
        assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("100", remaining)
        kept.close()
    kept = KeptCounts(tmp_path / "counts")
    with pytest.raises(RateLimitedError, match="100 characters in 86400 s") as refused:
        await spend(limits(kept=kept), demand(quota, characters=40))
    assert refused.value.retry_after is not None
    assert 86_000 < refused.value.retry_after <= 86_400
    await spend(limits(kept=kept), demand(quota, caller="another", characters=100))
    kept.close()


async def test_a_day_ends(tmp_path: Path) -> None:
    now = [1000.0]
    kept = KeptCounts(tmp_path / "counts", lambda: now[0])
    assert await kept.incr("a", 10, 3) == 3
    assert await kept.incr("a", 10, 4) == 7
    assert (await kept.get("a"), await kept.get_expiry("a"), await kept.get("b")) == (7, 1010.0, 0)
    now[0] = 1010.0
    assert await kept.get("a") == 0
    assert await kept.incr("a", 10, 1) == 1
    await kept.clear("a")
    assert await kept.get("a") == 0
    assert await kept.check()
    await kept.incr("b", 10)
    assert await kept.reset() == 1
    kept.close()


async def test_counts_that_cannot_be_kept_are_open_or_closed_as_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    quota = Quota(characters_per_day=100)
    kept = KeptCounts(tmp_path / "file" / "counts")
    assert await spend(limits(kept=kept), demand(quota)) == {}
    with pytest.raises(LimitsUnavailableError):
        await spend(limits(kept=kept, open_without_redis=False), demand(quota))
