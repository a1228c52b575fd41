"""The audio of finished jobs in Redis, sent and fetched in pieces."""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import Any

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job
from balancer.jobs.redis.keys import AUDIO, AUDIO_PART
from balancer.jobs.redis.records import JobRecords
from balancer.jobs.redis.spool import Spool, append

PIECE_BYTES = 2**20
"""The audio of a job is sent and fetched in pieces of this size."""
PART_SECONDS = 600
"""Time that the pieces of a host that has died are kept."""


class RedisResults:
    """The audio of jobs, fetched to the `spool`."""

    def __init__(self, records: JobRecords, spool: Spool) -> None:
        self._records = records
        self._spool = spool

    async def send(self, job: Job, audio: AudioBuffer) -> str:
        """Send audio to a key of its own, which a transition makes that of the job; empty where there is no audio."""
        part = f"{AUDIO_PART}{job.id}:{job.attempts}"
        await self._records.execute(lambda redis: redis.delete(part))
        for start in range(0, len(audio), PIECE_BYTES):
            piece = await self._spool.run(partial(audio.read, start, min(PIECE_BYTES, len(audio) - start)))
            await self._records.execute(partial(_send_piece, part=part, start=start, piece=piece))
        return part if len(audio) else ""

    async def file(self, job: Job) -> Path | None:
        """A file with the audio of a job; None if it no longer exists."""
        file = self._spool.result(job)
        with self._spool.translated("the audio of jobs"):
            return file if await self._spool.run(file.exists) or await self._fetch(job, file) else None

    async def _fetch(self, job: Job, file: Path) -> bool:
        """Copy the audio of a job to a file, in pieces; False if there is none, or not all of it. Raises OSError."""
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        size = 0
        try:
            while piece := await self._records.execute(partial(_piece, job_id=job.id, start=size)):
                await self._spool.run(partial(append, temporary, piece))
                size += len(piece)
            complete = size > 0 and job.size in (0, size)  # 0: the host that made it was of an earlier version
            if complete:
                await self._spool.run(partial(temporary.replace, file))
            return complete
        finally:
            self._spool.start(partial(temporary.unlink, missing_ok=True))


async def _piece(redis: Any, job_id: str, start: int) -> bytes:
    """Up to PIECE_BYTES of the audio of a job; empty behind its end."""
    piece: bytes = await redis.getrange(f"{AUDIO}{job_id}", start, start + PIECE_BYTES - 1)
    return piece


async def _send_piece(redis: Any, part: str, start: int, piece: bytes) -> None:
    pipeline = redis.pipeline(transaction=True)
    pipeline.setrange(part, start, piece)  # not `append`: the client may send a command twice
    pipeline.expire(part, PART_SECONDS)
    await pipeline.execute()
