"""The finished segments of a folder's jobs that have not ended: files, and rows that count them as callers' audio."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job
from balancer.jobs.sqlite.claims import read_claim, replace_claimed
from balancer.jobs.sqlite.job_folder import JobFolder
from balancer.jobs.sqlite.job_table import usage


class SqliteSegments:
    """See JobSegments."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder

    async def begin(self, job: Job, segmentation: str, total: int) -> tuple[Job, Collection[int]] | None:
        """See JobSegments. The files are kept: the rows that count them are made anew."""

        def begin() -> tuple[Job, Collection[int]] | None:
            kept = self._folder.segments.begin(job, segmentation)
            begun = job.with_segmentation(segmentation, total, len(kept))
            rows = [(job.id, number, size) for number, size in kept.items()]

            def count(database: sqlite3.Connection) -> None:
                database.execute("DELETE FROM segments WHERE job = ?", (job.id,))
                database.executemany("INSERT INTO segments VALUES (?, ?, ?)", rows)

            return (begun, kept.keys()) if replace_claimed(self._folder, job, begun, count) else None

        return await self._folder.run(begin)

    async def keep(self, job: Job, number: int, audio: AudioBuffer) -> bool:
        """See JobSegments. It is counted before it is written; the next run counts the files that were written."""
        return await self._folder.run(lambda: self._keep(job, number, audio))

    async def read(self, job: Job, number: int) -> bytes | None:
        """See JobSegments. One that was counted a moment ago may still have to be written."""
        return await self._folder.run(lambda: self._folder.segments.read(job, number))

    async def files(self, job: Job) -> Sequence[Path]:
        """See JobSegments."""
        return await self._folder.run(lambda: self._folder.segments.files(job))

    def _keep(self, job: Job, number: int, audio: AudioBuffer) -> bool:
        if not self._count(job, number, len(audio)):
            return False
        self._folder.segments.write(job, number, audio)
        with self._folder.transaction() as database:
            claim = read_claim(database, job)
            counted = database.execute("SELECT 1 FROM segments WHERE job = ? LIMIT 1", (job.id,)).fetchone()
        if claim is None or claim.held:
            return True
        if not claim.running and counted is None:  # the job has ended meanwhile, or is to be begun anew
            self._folder.segments.delete(job.id)
        return False

    def _count(self, claimed: Job, number: int, size: int) -> bool:
        """Count a segment of `size` bytes, once; False if the claim no longer holds. Raises StoreFullError."""
        with self._folder.transaction() as database:
            claim = read_claim(database, claimed)
            if claim is None:
                return True  # see replace_claimed; the next run counts it
            if not claim.held:
                return False
            row = (claimed.id, number, size)
            added = database.execute("INSERT OR IGNORE INTO segments VALUES (?, ?, ?)", row).rowcount
            if added and (kept_size := claim.kept_size + size) > claim.counted:
                usage(database, claimed.caller_id).check_audio(kept_size, self._folder.limits, kept_size)
            return True
