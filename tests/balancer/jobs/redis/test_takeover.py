"""The jobs of an earlier version in Redis run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balancer.jobs.job import JobState
from balancer.jobs.redis.store import RedisJobStore
from balancer.redis.client import RedisClient
from scripts.support.redis_server import RedisServer
from tests.support.jobs import found, job


async def test_jobs_of_an_earlier_version_are_taken_over(redis: RedisServer, tmp_path: Path) -> None:
    redis.empty()
    client = RedisClient(redis.url)
    raw: Any = client.raw
    running = job(9, caller="many", state=JobState.RUNNING, attempts=1)
    waiting = [*(job(number, caller="many") for number in range(2)), job(5, caller="few")]
    for number, one in enumerate([*waiting, running]):
        fields = {"state": one.state.value, "attempts": one.attempts, "number": number, "characters": 10}
        await raw.hset(f"chorus:job:{one.id}", mapping=fields | {"content": one.to_json(), "key": ""})
        await raw.xadd("chorus:jobs", {"id": one.id})
        await raw.hincrby("chorus:job-counts", one.state.value, 1)
    await raw.zadd("chorus:jobs-queued", {one.id: number for number, one in enumerate(waiting)})
    store = RedisJobStore(client, tmp_path, lease=60)
    assert [found(await store.claims.claim_next()).id for _ in range(3)] == ["job-0", "job-5", "job-1"]
    assert await store.claims.claim_next() is None
    counts = await store.counts()
    assert (counts[JobState.QUEUED], counts[JobState.RUNNING]) == (0, 4)
    await store.aclose()
    await client.aclose()
