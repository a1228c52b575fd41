"""A wall clock that jumps neither starves nor expires a job, its webhook or a counter."""

from __future__ import annotations

from pathlib import Path

from balancer.access.sqlite_counters import SqliteCounterStorage
from balancer.runtime.expiry_clock import ExpiryClock
from tests.support.clock import Clock
from tests.support.jobs import ERROR, RESULT, Opened, found, job

YEAR = 365 * 86_400.0


async def test_a_delayed_job_is_claimed_after_a_jump_back(opened: Opened) -> None:
    clock = Clock(YEAR)
    async with opened(clock) as store:
        await store.add([job(1)])
        await store.claims.retry_later(found(await store.claims.claim_next()), ERROR, clock.now + 5)
        assert await store.claims.claim_next() is None
        clock.now -= YEAR / 2
        assert found(await store.claims.claim_next()).id == "job-1"


async def test_a_webhook_is_delivered_after_a_jump_back(opened: Opened) -> None:
    clock = Clock(YEAR)
    async with opened(clock) as store:
        await store.add([job(1, webhook="https://example.org/")])
        await store.claims.finish(found(await store.claims.claim_next()), RESULT)
        assert [due.id for due in await store.outbox.due(YEAR / 2)] == ["job-1"]


def test_nothing_expires_by_a_jump_forward() -> None:
    wall, steady = Clock(YEAR), Clock(10.0)
    clock = ExpiryClock(wall, steady)
    wall.now += YEAR
    steady.now += 5
    assert clock() == YEAR + 5
    wall.now -= 2 * YEAR - 7
    assert clock() == 7.0


async def test_a_days_counter_ends_a_day_after_a_jump_back(tmp_path: Path) -> None:
    clock = Clock(YEAR)
    counters = SqliteCounterStorage(tmp_path / "counts", clock)
    await counters.incr("a", 86_400, 5)
    clock.now -= YEAR / 2
    assert await counters.get("a") == 5
    clock.now += 86_400
    assert await counters.get("a") == 0
    counters.close()
