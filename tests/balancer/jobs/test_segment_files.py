"""Segments as files: complete or not there, of one plan, and none that belongs to nobody."""

from __future__ import annotations

from pathlib import Path

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.segment_files import SegmentFiles
from balancer.jobs.sqlite_store import SqliteJobStore
from tests.support.jobs import found, job

PCM = MemoryBuffer(b"pcm")


def test_only_complete_files_of_the_plan_are_kept(tmp_path: Path) -> None:
    files = SegmentFiles(tmp_path)
    assert files.begin(job(1), "plan") == {}
    one = job(1, plan="plan")
    for number in (10, 2, 0):
        files.write(one, number, PCM)
    (files.files(one)[0].parent / ".000005.pcm.1").write_bytes(b"p")  # of a process that died as it wrote
    assert files.begin(one, "plan") == {0: 3, 2: 3, 10: 3}
    assert [int(file.stem) for file in files.files(one)] == [0, 2, 10]
    assert files.begin(one, "other") == {}
    assert files.begin(one, "plan") == {}


def test_segments_of_unknown_jobs_are_deleted(tmp_path: Path) -> None:
    files = SegmentFiles(tmp_path / "segments")
    assert files.delete_others(()) == 0
    for number in range(3):
        files.write(job(number, plan="plan"), 0, PCM)
    assert files.delete_others(["job-1", "job-9"]) == 2
    assert [folder.name for folder in (tmp_path / "segments").iterdir()] == ["job-1"]
    files.delete("job-1")
    files.delete("job-1")
    assert list((tmp_path / "segments").iterdir()) == []


async def test_a_store_deletes_orphans_when_it_begins_to_run_jobs(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    begun = await store.begin_segments(found(await store.claim()), "plan", 2)
    assert begun is not None
    await store.keep_segment(begun[0], 0, PCM)
    await store.aclose()
    files = SegmentFiles(tmp_path / "segments")
    files.write(job(7, plan="plan"), 0, PCM)
    store = SqliteJobStore(tmp_path)
    again = found(await store.claim())
    assert [folder.name for folder in (tmp_path / "segments").iterdir()] == ["job-1"]
    assert (again.attempts, again.segments_done) == (2, 1)
    await store.aclose()


async def test_segments_outlive_the_database(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    begun = await store.begin_segments(found(await store.claim()), "plan", 2)
    assert begun is not None
    await store.keep_segment(begun[0], 0, PCM)
    for file in tmp_path.glob("jobs.sqlite3*"):
        file.unlink()
    assert await store.keep_segment(begun[0], 1, PCM)
    await store.release(begun[0])
    again = await store.begin_segments(found(await store.claim()), "plan", 2)
    assert again is not None
    assert set(again[1]) == {0, 1}
    assert await store.audio_bytes() == 2 * len(PCM)
    await store.aclose()
