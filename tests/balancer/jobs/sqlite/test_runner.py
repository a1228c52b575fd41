"""The process that begins to run the jobs of a folder tidies up after the one before."""

from __future__ import annotations

from pathlib import Path

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.sqlite.segment_files import SegmentFiles
from balancer.jobs.sqlite.store import SqliteJobStore
from tests.support.jobs import found, job

PCM = MemoryBuffer(b"pcm")


async def test_a_store_deletes_orphans_when_it_begins_to_run_jobs(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    begun = await store.segments.begin(found(await store.claims.claim_next()), "digest", 2)
    assert begun is not None
    await store.segments.keep(begun[0], 0, PCM)
    await store.aclose()
    files = SegmentFiles(tmp_path / "segments")
    files.write(job(7, segmentation="digest"), 0, PCM)
    store = SqliteJobStore(tmp_path)
    again = found(await store.claims.claim_next())
    assert [folder.name for folder in (tmp_path / "segments").iterdir()] == ["job-1"]
    assert (again.attempts, again.segments_done) == (2, 1)
    await store.aclose()
