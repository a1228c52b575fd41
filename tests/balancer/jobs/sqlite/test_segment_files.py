"""Segments as files: complete or not there, of one segmentation, and none that belongs to nobody."""

from __future__ import annotations

from pathlib import Path

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.sqlite.segment_files import SegmentFiles
from tests.support.jobs import job

PCM = MemoryBuffer(b"pcm")


def test_only_complete_files_of_the_segmentation_are_kept(tmp_path: Path) -> None:
    files = SegmentFiles(tmp_path)
    assert files.begin(job(1), "digest") == {}
    one = job(1, segmentation="digest")
    for number in (10, 2, 0):
        files.write(one, number, PCM)
    (files.files(one)[0].parent / ".000005.pcm.1").write_bytes(b"p")  # of a process that died as it wrote
    assert files.begin(one, "digest") == {0: 3, 2: 3, 10: 3}
    assert [int(file.stem) for file in files.files(one)] == [0, 2, 10]
    assert files.begin(one, "other") == {}
    assert files.begin(one, "digest") == {}


def test_segments_of_unknown_jobs_are_deleted(tmp_path: Path) -> None:
    files = SegmentFiles(tmp_path / "segments")
    assert files.delete_others(()) == 0
    for number in range(3):
        files.write(job(number, segmentation="digest"), 0, PCM)
    assert files.delete_others(["job-1", "job-9"]) == 2
    assert [folder.name for folder in (tmp_path / "segments").iterdir()] == ["job-1"]
    files.delete("job-1")
    files.delete("job-1")
    assert list((tmp_path / "segments").iterdir()) == []
