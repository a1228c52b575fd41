"""A running job's segments go to the store until the claim is lost, and wait for a store that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.kept_segments import ClaimLostError, KeptSegments, T
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import JobStoreError
from tests.support.jobs import found, job

PCM = MemoryBuffer(b"pcm")


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except JobStoreError:
            await asyncio.sleep(0.005)


async def test_segments_are_kept_until_the_claim_is_lost(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    stopping = False
    kept = KeptSegments(found(await store.claims.claim_next()), store.segments, until_answered, lambda: stopping)
    assert set(await kept.begin("digest", 3)) == set()
    await kept.keep(1, PCM)
    assert (kept.job.segments, kept.job.segments_done, kept.speaking, kept.stops) == (3, 1, True, False)
    stopping = True
    assert kept.stops
    assert len(await kept.files()) == 1
    assert not kept.speaking
    await store.cancel("job-1")
    with pytest.raises(ClaimLostError):
        await kept.keep(2, PCM)
    with pytest.raises(ClaimLostError):
        await kept.begin("digest", 3)
    await store.aclose()


async def test_a_segment_waits_for_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    kept = KeptSegments(found(await store.claims.claim_next()), store.segments, until_answered, lambda: False)
    await kept.begin("digest", 3)
    obstacle = tmp_path / "segments"
    obstacle.write_text("no folder")
    keeping = asyncio.create_task(kept.keep(0, PCM))
    await asyncio.wait([keeping], timeout=0.05)
    assert not keeping.done()
    obstacle.unlink()
    await keeping
    assert found(await store.get("job-1")).segments_done == 1
    await store.aclose()
