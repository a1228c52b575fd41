"""The audio of jobs in Redis reaches clients whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.redis import results
from balancer.jobs.redis.store import RedisJobStore
from balancer.jobs.store import JobResult
from balancer.redis.client import RedisClient
from scripts.support.redis_server import RedisServer
from tests.support.jobs import LEASE, found, job


async def test_audio_is_fetched_in_pieces_and_only_whole(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PIECE_BYTES", 1000)
    redis.empty()
    client = RedisClient(redis.url)
    raw: Any = client.raw
    store = RedisJobStore(client, tmp_path, lease=LEASE)
    audio = bytes(range(256)) * 10
    await store.add([job(1), job(2)])
    for _ in range(2):
        await store.claims.finish(found(await store.claims.claim_next()), JobResult(MemoryBuffer(audio), 1.0, "d"))
    whole, part = found(await store.get("job-1")), found(await store.get("job-2"))
    file = await store.audio(whole)
    assert file is not None
    assert file.read_bytes() == audio
    assert await store.audio(whole) == file
    await raw.set("chorus:job-audio:job-2", audio[:-1])
    assert await store.audio(part) is None
    await store.aclose()
    await client.aclose()
