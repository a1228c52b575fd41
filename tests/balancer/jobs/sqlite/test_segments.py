"""The files that say which segments are kept, whatever became of the rows that count them."""

from __future__ import annotations

from pathlib import Path

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.sqlite.store import SqliteJobStore
from tests.support.jobs import found, job

PCM = MemoryBuffer(b"pcm")


async def test_segments_outlive_the_database(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    begun = await store.segments.begin(found(await store.claims.claim_next()), "digest", 2)
    assert begun is not None
    await store.segments.keep(begun[0], 0, PCM)
    for file in tmp_path.glob("jobs.sqlite3*"):
        file.unlink()
    assert await store.segments.keep(begun[0], 1, PCM)
    await store.claims.release(begun[0])
    again = await store.segments.begin(found(await store.claims.claim_next()), "digest", 2)
    assert again is not None
    assert set(again[1]) == {0, 1}
    assert await store.retention.audio_bytes() == 2 * len(PCM)
    await store.aclose()
