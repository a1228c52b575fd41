"""The job store in a Redis that holds jobs of an earlier version, or refuses commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs import redis_store
from balancer.jobs.job import JobState
from balancer.jobs.redis_store import RedisJobStore
from balancer.jobs.store import JobResult, JobStoreError
from balancer.redis.client import RedisClient
from tests.support.jobs import ERROR, LEASE, RESULT, found, job
from tests.support.redis_server import RedisServer, start_redis


async def test_jobs_of_an_earlier_version_are_taken_over(redis: RedisServer, tmp_path: Path) -> None:
    redis.empty()
    client = RedisClient(redis.url)
    raw: Any = client.raw
    running = job(9, caller="many", state=JobState.RUNNING, attempts=1)
    waiting = [*(job(number, caller="many") for number in range(2)), job(5, caller="few")]
    for number, one in enumerate([*waiting, running]):
        fields = {"state": one.state.value, "attempts": one.attempts, "number": number, "characters": 10}
        await raw.hset(f"chorus:job:{one.id}", mapping=fields | {"content": one.model_dump_json(), "key": ""})
        await raw.xadd("chorus:jobs", {"id": one.id})
        await raw.hincrby("chorus:job-counts", one.state.value, 1)
    await raw.zadd("chorus:jobs-queued", {one.id: number for number, one in enumerate(waiting)})
    store = RedisJobStore(client, tmp_path, lease=60)
    assert [found(await store.claim()).id for _ in range(3)] == ["job-0", "job-5", "job-1"]
    assert await store.claim() is None
    counts = await store.counts()
    assert (counts[JobState.QUEUED], counts[JobState.RUNNING]) == (0, 4)
    await store.aclose()
    await client.aclose()


async def test_a_full_redis_refuses_audio_and_new_jobs_but_no_other_change(tmp_path: Path) -> None:
    with start_redis() as server:
        client = RedisClient(server.url)
        raw: Any = client.raw
        store = RedisJobStore(client, tmp_path, lease=LEASE)
        await store.add([job(1), job(2), job(3)])
        one, two = found(await store.claim()), found(await store.claim())
        await raw.config_set("maxmemory", 1)
        for refused in (store.finish(one, JobResult(MemoryBuffer(b"x" * 1000), 1.0, "d")), store.add([job(4)])):
            with pytest.raises(JobStoreError, match="Redis refused a command"):
                await refused
        assert client.unavailable_reason is None
        assert found(await store.get("job-1")).state is JobState.RUNNING
        assert await store.retry_later(one, ERROR, 0.0, counts=False)
        assert await store.fail(two, ERROR)
        await raw.config_set("maxmemory", 0)
        again = found(await store.claim())
        assert (again.id, again.attempts) == ("job-1", 1)
        assert await store.finish(again, RESULT)
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


async def test_audio_is_fetched_in_pieces_and_only_whole(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "PIECE_BYTES", 1000)
    redis.empty()
    client = RedisClient(redis.url)
    raw: Any = client.raw
    store = RedisJobStore(client, tmp_path, lease=LEASE)
    audio = bytes(range(256)) * 10
    await store.add([job(1), job(2)])
    for _ in range(2):
        await store.finish(found(await store.claim()), JobResult(MemoryBuffer(audio), 1.0, "d"))
    whole, part = found(await store.get("job-1")), found(await store.get("job-2"))
    file = await store.audio(whole)
    assert file is not None
    assert file.read_bytes() == audio
    assert await store.audio(whole) == file
    await raw.set("chorus:job-audio:job-2", audio[:-1])
    assert await store.audio(part) is None
    await store.aclose()
    await client.aclose()
