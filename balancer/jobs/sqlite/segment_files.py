"""The finished segments of jobs that have not ended, as files: a job goes on from them after a crash.

A job has a folder, in it a segmentation has one, and in it a segment has a file of PCM. A file is complete if it is
there.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job
from balancer.jobs.sqlite.result_files import write_durably

SUFFIX = ".pcm"


class SegmentFiles:
    """Segments in `folder`. The methods block; they raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, job: Job, segmentation: str) -> dict[int, int]:
        """The sizes of the segments that are kept for a segmentation, by number; those of others are deleted."""
        with suppress(FileNotFoundError):
            for other in (self._folder / job.id).iterdir():
                if other.name != segmentation:
                    shutil.rmtree(other)
        return {int(file.stem): file.stat().st_size for file in self._files(job.id, segmentation)}

    def write(self, job: Job, number: int, audio: AudioBuffer) -> None:
        """Keep a segment of the job's segmentation durably."""
        write_durably(self._file(job, number), audio)

    def read(self, job: Job, number: int) -> bytes | None:
        """A segment of the job's segmentation; None if it is not kept."""
        try:
            return self._file(job, number).read_bytes()
        except FileNotFoundError:
            return None

    def files(self, job: Job) -> list[Path]:
        """The kept segments of the job's segmentation, in their order."""
        return sorted(self._files(job.id, job.segmentation))

    def delete(self, job_id: str) -> None:
        """Delete the segments of a job, if there are any."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder / job_id)

    def delete_others(self, job_ids: Collection[str]) -> int:
        """Delete the segments of all jobs but these; returns of how many."""
        try:
            others = [folder.name for folder in self._folder.iterdir() if folder.name not in job_ids]
        except FileNotFoundError:
            return 0
        for job_id in others:
            self.delete(job_id)
        return len(others)

    def _file(self, job: Job, number: int) -> Path:
        return self._folder / job.id / job.segmentation / f"{number:06}{SUFFIX}"

    def _files(self, job_id: str, segmentation: str) -> list[Path]:
        return list((self._folder / job_id / segmentation).glob(f"[0-9]*{SUFFIX}"))
