"""The finished segments in Redis of jobs that have not ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job
from balancer.jobs.redis.keys import JOB, SEGMENTATION, SEGMENTS
from balancer.jobs.redis.records import JobRecords, store_full
from balancer.jobs.redis.spool import Spool, write


class RedisSegments:
    """See JobSegments."""

    def __init__(self, records: JobRecords, spool: Spool) -> None:
        self._records = records
        self._spool = spool
        self._begin_script = records.load("begin_segments")
        self._keep_script = records.load("keep_segment")

    async def begin(self, job: Job, segmentation: str, total: int) -> tuple[Job, Collection[int]] | None:
        """See JobSegments."""
        kept = await self._records.execute(lambda redis: redis.hmget(f"{JOB}{job.id}", SEGMENTATION, "kept"))
        done = int(kept[1] or 0) if kept[0] == segmentation.encode() else 0
        begun = job.with_segmentation(segmentation, total, done)
        numbers = await self._begin_script(job.id, job.attempts, segmentation, begun.to_json())
        return None if numbers is None else (begun, {int(number) for number in numbers})

    async def keep(self, job: Job, number: int, audio: AudioBuffer) -> bool:
        """See JobSegments."""
        content = await self._spool.run(lambda: bytes(audio))
        limits = self._records.limits.enforced_audio_bytes
        kept, *full = await self._keep_script(job.id, job.attempts, number, content, *limits)
        if full:
            raise store_full(full)
        return bool(kept)

    async def read(self, job: Job, number: int) -> bytes | None:
        """See JobSegments."""
        segmentation, content = await self._records.execute(partial(_segmentation_and_segment, job.id, number))
        return content if segmentation == job.segmentation.encode() else None

    async def files(self, job: Job) -> Sequence[Path]:
        """See JobSegments: they are copies, in the spool."""
        key, files = f"{SEGMENTS}{job.id}", []
        with self._spool.translated("the segments of jobs"):
            for number in sorted(map(int, await self._records.execute(lambda redis: redis.hkeys(key)))):
                content = await self._records.execute(partial(_segment, key, number))
                files.append(self._spool.segment(job, number))
                await self._spool.run(partial(write, files[-1], content))
        return files


async def _segment(key: str, number: int, redis: Any) -> bytes:
    return await redis.hget(key, number) or b""


async def _segmentation_and_segment(job_id: str, number: int, redis: Any) -> tuple[bytes | None, bytes | None]:
    """The segmentation that a job's segments are of, and one of them; None where there is none."""
    pipeline = redis.pipeline(transaction=True)
    pipeline.hget(f"{JOB}{job_id}", SEGMENTATION)
    pipeline.hget(f"{SEGMENTS}{job_id}", number)
    segmentation, content = await pipeline.execute()
    return segmentation, content
