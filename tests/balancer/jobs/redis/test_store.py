"""The job store in a Redis that is gone for a while, or refuses commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.job import JobState
from balancer.jobs.redis.store import RedisJobStore
from balancer.jobs.store import JobResult, JobStoreError
from balancer.redis.client import RedisClient
from tests.support.harness import until
from tests.support.jobs import ERROR, LEASE, RESULT, found, job
from tests.support.redis_server import start_redis


async def test_a_full_redis_refuses_audio_and_new_jobs_but_no_other_change(tmp_path: Path) -> None:
    with start_redis() as server:
        client = RedisClient(server.url)
        raw: Any = client.raw
        store = RedisJobStore(client, tmp_path, lease=LEASE)
        await store.add([job(1), job(2), job(3)])
        one, two = found(await store.claims.claim_next()), found(await store.claims.claim_next())
        await raw.config_set("maxmemory", 1)
        for refused in (store.claims.finish(one, JobResult(MemoryBuffer(b"x" * 1000), 1.0, "d")), store.add([job(4)])):
            with pytest.raises(JobStoreError, match="Redis refused a command"):
                await refused
        assert client.unavailable_reason is None
        assert found(await store.get("job-1")).state is JobState.RUNNING
        assert await store.claims.retry_later(one, ERROR, 0.0, counts=False)
        assert await store.claims.fail(two, ERROR)
        await raw.config_set("maxmemory", 0)
        again = found(await store.claims.claim_next())
        assert (again.id, again.attempts) == ("job-1", 1)
        assert await store.claims.finish(again, RESULT)
        await store.aclose()
        await client.aclose()


async def test_a_read_only_redis_is_reported_once_and_not_as_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start_redis() as server:
        client = RedisClient(server.url)
        await client.raw.execute_command("REPLICAOF", "127.0.0.1", "1")
        store = RedisJobStore(client, tmp_path, lease=LEASE)
        for _ in range(3):
            with pytest.raises(JobStoreError, match="read only replica"):
                await store.add([job(1)])
            assert await store.get("job-1") is None, "it can be read"
        messages = [record.getMessage() for record in caplog.records if "Redis" in record.getMessage()]
        assert len(messages) == 1
        await client.raw.execute_command("REPLICAOF", "NO", "ONE")
        await store.add([job(1)])
        await store.aclose()
        await client.aclose()


async def test_an_outage_of_redis_loses_no_job(tmp_path: Path) -> None:
    with start_redis() as server:
        client = RedisClient(server.url)
        store = RedisJobStore(client, tmp_path, lease=LEASE)
        await store.add([job(1), job(2)])
        claimed = found(await store.claims.claim_next())
        server.kill()
        with pytest.raises(JobStoreError, match="Redis is unavailable"):
            await store.add([job(3)])
        server.start()
        await until(lambda: client.unavailable_reason is None)
        assert await store.claims.finish(claimed, RESULT)
        assert found(await store.claims.claim_next()).id == "job-2"
        await store.aclose()
        await client.aclose()
