"""A stored job that cannot be read has failed, and everything else goes on, in both job stores."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from balancer.jobs.job import JobState
from balancer.jobs.sqlite.database import DATABASE
from balancer.redis.client import RedisClient
from tests.support.jobs import RESULT, Opened, found, job

Damage = Callable[[str], str]


def of_a_later_version(content: str) -> str:
    return json.dumps(json.loads(content) | {"state": "paused"})


def without_a_field(content: str) -> str:
    return json.dumps({name: value for name, value in json.loads(content).items() if name != "characters"})


def torn(content: str) -> str:
    return content[: len(content) // 2]


def without_a_date(content: str) -> str:
    return json.dumps(json.loads(content) | {"created": 1e300})


@pytest.fixture
def damage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, Damage], Awaitable[None]]:
    """Changes what is stored of a job, in the store that `opened` opens."""
    in_redis = "redis" in request.node.name

    async def change(job_id: str, how: Damage) -> None:
        if in_redis:
            client: Any = RedisClient(request.getfixturevalue("redis").url)
            content = (await client.raw.hget(f"chorus:job:{job_id}", "content")).decode()
            await client.raw.hset(f"chorus:job:{job_id}", "content", how(content))
            await client.aclose()
            return
        database = sqlite3.connect(tmp_path / DATABASE)
        with database:
            (content,) = database.execute("SELECT content FROM jobs WHERE id = ?", (job_id,)).fetchone()
            database.execute("UPDATE jobs SET content = ? WHERE id = ?", (how(content), job_id))
        database.close()

    return change


@pytest.mark.parametrize("how", [of_a_later_version, without_a_field, torn, without_a_date])
async def test_a_queued_job_that_cannot_be_read_fails(
    opened: Opened, damage: Callable[[str, Damage], Awaitable[None]], how: Damage
) -> None:
    async with opened() as store:
        await store.add([job(1), job(2)])
        await damage("job-1", how)
        assert found(await store.claims.claim_next()).id == "job-2"
        failed = found(await store.get("job-1"))
        assert failed.error is not None
        assert (failed.state, failed.error.code) == (JobState.FAILED, "job_unreadable")
        assert [one.id for one in await store.failed(10)] == ["job-1"]
        counts = await store.counts()
        assert (counts[JobState.FAILED], counts[JobState.RUNNING], counts[JobState.QUEUED]) == (1, 1, 0)
        assert store.unreadable == 1


async def test_an_ended_job_that_cannot_be_read_stops_no_webhook_and_no_purge(
    opened: Opened, damage: Callable[[str, Damage], Awaitable[None]]
) -> None:
    async with opened() as store:
        await store.add([job(number, webhook="https://example.org/") for number in (1, 2)])
        for _ in range(2):
            await store.claims.finish(found(await store.claims.claim_next()), RESULT)
        await damage("job-1", torn)
        assert [one.id for one in await store.outbox.due(2000.0) if one.state is JobState.DONE] == ["job-2"]
        assert found(await store.get("job-1")).state is JobState.FAILED
        assert await store.retention.purge(5000.0) == 1


async def test_a_running_job_that_cannot_be_read_is_not_claimed_again(
    opened: Opened, damage: Callable[[str, Damage], Awaitable[None]]
) -> None:
    async with opened() as store:
        await store.add([job(1), job(2)])
        await store.claims.claim_next()
        await damage("job-1", torn)
        assert found(await store.claims.claim_next()).id == "job-2"
        assert found(await store.get("job-1")).state is JobState.FAILED
