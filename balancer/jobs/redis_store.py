"""Jobs in Redis, for several hosts: a stream that every host reads as one consumer of one consumer group.

A host with an idle worker reads the next entry of the stream and acknowledges it when its job has ended. While a job
runs, its host renews its claim every few seconds; when a claim has not been renewed for `lease` seconds, the next host
that asks takes the entry over. Each claim increments the job's attempts, and only the latest claim can end the job, so
a host that was wrongly taken for dead produces no second result.

Every change of a job is one Lua script (`lua/*.lua`), so no reader sees a change half made. Redis must persist what it
is given (`appendonly yes`) and must not evict it (`maxmemory-policy noeviction`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from balancer.jobs.job import Job, JobError, JobState
from balancer.jobs.store import IdempotencyError, JobStoreError, QueuedAhead, Result
from balancer.redis_client import RedisClient, RedisUnavailableError, Script
from balancer.thread_pool import ThreadPool

log = logging.getLogger(__name__)

GROUP = "hosts"
"""Consumer group of the stream; each host is one consumer."""
STREAM = "chorus:jobs"
JOB = "chorus:job:"
AUDIO = "chorus:job-audio:"
IDEMPOTENCY = "chorus:job-key:"
NUMBERS = "chorus:job-numbers"
COUNTS = "chorus:job-counts"
QUEUED = "chorus:jobs-queued"
"""Sorted set: queued jobs by order of arrival."""
DELAYED = "chorus:jobs-later"
"""Sorted set: queued jobs that are not due yet, by the time when they are."""
FINAL = "chorus:jobs-final"
"""Sorted set: final jobs by the time when they ended."""
FAILED = "chorus:jobs-failed"
"""Sorted set: failed jobs by the time when they ended."""
WEBHOOKS = "chorus:job-webhooks"
"""Sorted set: jobs whose webhook is to be delivered, by the time when it is due."""
_KEYS = [STREAM, NUMBERS, COUNTS, QUEUED, DELAYED, FINAL, FAILED, WEBHOOKS]
"""KEYS of every script, in the order in which the scripts number them."""

LEASE_SECONDS = 15.0
WEBHOOK_LEASE_SECONDS = 60.0
"""A host that has claimed a webhook and recorded no attempt for so long is taken for dead."""
MAX_COUNTED = 1000
"""Queued jobs whose characters are summed one by one; where there are more, their average stands for the rest."""

T = TypeVar("T")


class RedisJobStore:
    """A JobStore in Redis. `spool` is a folder of this host for audio on its way to clients; `clock` gives Unix time.

    A claim that is not renewed for `lease` seconds passes to another host.
    """

    def __init__(
        self, redis: RedisClient, spool: Path, *, lease: float = LEASE_SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._spool = spool
        self._lease = lease
        self._clock = clock
        self._pool = ThreadPool("job-files", 2)
        self._consumer = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._entries: dict[tuple[str, int], str] = {}
        """Stream entries of the claims that this host holds, by job id and attempt."""
        self._renewal: asyncio.Task[None] | None = None
        load = partial(redis.load_script, "balancer.jobs")
        self._add_script = load("add")
        self._transition_script = load("transition")
        self._enqueue_due_script = load("enqueue_due")
        self._ahead_script = load("ahead")
        self._claim_webhooks_script = load("claim_webhooks")
        self._record_webhook_attempt_script = load("record_webhook_attempt")
        self._purge_script = load("purge")

    # The methods of JobStore.

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """See JobStore."""
        arguments: list[str | int] = []
        for job in jobs:
            key = "" if job.idempotency_key is None else f"{IDEMPOTENCY}{job.caller}:{job.idempotency_key}"
            arguments += [job.id, key, job.request_digest, job.model_dump_json(), job.characters]
        ids = await self._run(self._add_script, JOB, *arguments)
        if ids is None:
            raise IdempotencyError
        added = [await self.get(id_.decode()) for id_ in ids]
        return [job for job in added if job is not None]

    async def get(self, job_id: str) -> Job | None:
        """See JobStore."""
        content = await self._execute(lambda redis: redis.hget(f"{JOB}{job_id}", "content"))
        return None if content is None else Job.model_validate_json(content)

    async def ahead(self, job: Job) -> QueuedAhead:
        """See JobStore."""
        jobs, characters = await self._run(self._ahead_script, JOB, job.id, MAX_COUNTED)
        return QueuedAhead(jobs, characters)

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """See JobStore. The characters before a job are estimated by the average of those before the last one."""
        found = await self._execute(partial(_contents_and_ranks, job_ids=job_ids))
        jobs = [(Job.model_validate_json(content), rank or 0) for content, rank in found if content is not None]
        if not jobs:
            return {}
        last, most = max(jobs, key=lambda job: job[1])
        average = (await self.ahead(last)).characters / most if most else 0.0
        return {job.id: (job, QueuedAhead(rank, round(rank * average))) for job, rank in jobs}

    async def claim(self) -> Job | None:
        """See JobStore."""
        await self._run(self._enqueue_due_script, self._clock())
        while (entry := await self._execute(self._next_entry)) is not None:
            entry_id, job_id = entry
            job = await self.get(job_id)
            if job is not None and not job.state.final:
                running = job.claimed(self._clock())
                if await self._move(job, running, from_states=(JobState.QUEUED, JobState.RUNNING), entry=entry_id):
                    self._entries[running.id, running.attempts] = entry_id
                    self._ensure_renewal()
                    return running
            await self._execute(partial(_acknowledge, entry_id=entry_id))
        return None

    async def finish(self, job: Job, result: Result) -> bool:
        """See JobStore."""
        done = job.done(self._clock(), seconds=result.seconds, digest=result.digest)
        return await self._end(job, done, await self._pool.run(lambda: bytes(result.audio)))

    async def fail(self, job: Job, error: JobError) -> bool:
        """See JobStore."""
        return await self._end(job, job.failed(self._clock(), error))

    async def retry_later(self, job: Job, error: JobError, due: float) -> bool:
        """See JobStore."""
        return await self._end(job, job.queued_for_retry(error, due))

    async def release(self, job: Job) -> None:
        """See JobStore."""
        await self._end(job, job.released())

    async def cancel(self, job_id: str) -> Job | None:
        """See JobStore."""
        while (job := await self.get(job_id)) is not None and not job.state.final:
            cancelled = job.cancelled(self._clock())
            if await self._move(job, cancelled, from_states=(JobState.QUEUED, JobState.RUNNING)):
                return cancelled
        return job

    async def audio(self, job: Job) -> Path | None:
        """See JobStore."""
        file = self._spool / f"{job.id}{job.suffix}"
        if not file.exists():
            audio = await self._execute(lambda redis: redis.get(f"{AUDIO}{job.id}"))
            if audio is None:
                return None
            try:
                await self._pool.run(lambda: _write(file, audio))
            except OSError as error:
                raise JobStoreError(f"the audio of jobs cannot be written to {self._spool}: {error}") from error
        return file

    async def counts(self) -> dict[JobState, int]:
        """See JobStore."""
        found = await self._execute(lambda redis: redis.hgetall(COUNTS))
        return {state: int(found.get(state.value.encode(), 0)) for state in JobState}

    async def failed(self, limit: int) -> list[Job]:
        """See JobStore."""
        ids = await self._execute(lambda redis: redis.zrevrange(FAILED, 0, limit - 1))
        return await self._jobs(ids)

    async def requeue(self, job_id: str) -> Job | None:
        """See JobStore."""
        job = await self.get(job_id)
        if job is None:
            return None
        again = job.requeued()
        return again if await self._move(job, again, from_states=(JobState.FAILED,)) else None

    async def webhooks_due(self, now: float) -> list[Job]:
        """See JobStore. No other host gets them for WEBHOOK_LEASE_SECONDS."""
        return await self._jobs(await self._run(self._claim_webhooks_script, now, now + WEBHOOK_LEASE_SECONDS))

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """See JobStore."""
        current = await self.get(job.id)
        if current is not None:
            content = current.after_webhook_attempt(due=due, error=error).model_dump_json()
            next_due = "" if due is None else due
            await self._run(self._record_webhook_attempt_script, JOB, job.id, content, next_due)

    async def purge(self, before: float) -> int:
        """See JobStore."""
        await self._pool.run(lambda: _remove_old(self._spool, before))
        deleted: int = await self._run(self._purge_script, JOB, AUDIO, before)
        return deleted

    async def aclose(self) -> None:
        """See JobStore. Other hosts take over this host's claims after the lease. The Redis client stays open."""
        if self._renewal is not None:
            self._renewal.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewal
        self._pool.close()

    # Helpers.

    async def _next_entry(self, redis: Any) -> tuple[str, str] | None:
        """Return a stream entry and its job's id: an entry whose lease has run out, else the next new one."""
        try:
            _, entries, _ = await redis.xautoclaim(
                STREAM, GROUP, self._consumer, min_idle_time=round(self._lease * 1000), start_id="0", count=1
            )
            if not entries:
                answer = await redis.xreadgroup(GROUP, self._consumer, {STREAM: ">"}, count=1)
                entries = answer[0][1] if answer else []
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            with suppress(ResponseError):  # another host has just created it
                await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            return await self._next_entry(redis)
        if not entries:
            return None
        entry_id, fields = entries[0]
        return entry_id.decode(), fields[b"id"].decode()

    async def _end(self, claimed: Job, job: Job, audio: bytes = b"") -> bool:
        """Move a job out of its claim; False where the claim no longer holds."""
        entry = self._entries.get((claimed.id, claimed.attempts), "")
        moved = await self._move(claimed, job, from_states=(JobState.RUNNING,), audio=audio, entry=entry)
        self._entries.pop((claimed.id, claimed.attempts), None)
        return moved

    async def _move(
        self,
        before: Job,
        after: Job,
        *,
        from_states: tuple[JobState, ...],
        audio: bytes = b"",
        entry: str = "",
    ) -> bool:
        """Replace a job; False where it is in none of those states, or has been claimed again since `before`."""
        moved = await self._run(
            self._transition_script,
            *(JOB, AUDIO, GROUP),
            *(after.id, " ".join(from_states), before.attempts),
            *(after.state.value, after.attempts, after.model_dump_json()),
            *(after.due, after.finished or 0),
            *(audio, "" if after.webhook_due is None else after.webhook_due, entry),
        )
        return bool(moved)

    async def _jobs(self, ids: Sequence[bytes]) -> list[Job]:
        found = [await self.get(id_.decode()) for id_ in ids]
        return [job for job in found if job is not None]

    def _ensure_renewal(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew_claims())

    async def _renew_claims(self) -> None:
        """Renew every claim of this host, for as long as there are any."""
        while self._entries:
            await asyncio.sleep(self._lease / 4)
            if self._entries:
                with suppress(JobStoreError):
                    await self._execute(
                        lambda redis: redis.xclaim(
                            STREAM, GROUP, self._consumer, 0, list(self._entries.values()), justid=True
                        )
                    )

    async def _run(self, script: Script, *arguments: Any) -> Any:
        return await self._execute(lambda _: script(_KEYS, arguments))

    async def _execute(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await self._redis.execute(work)
        except RedisUnavailableError as error:
            raise JobStoreError(str(error)) from error


async def _contents_and_ranks(redis: Any, job_ids: Collection[str]) -> list[tuple[bytes | None, int | None]]:
    """Of each job, its content and its place among the queued ones, counted from 0; None where there is none."""
    pipeline = redis.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.hget(f"{JOB}{job_id}", "content").zrank(QUEUED, job_id)
    found = await pipeline.execute()
    return list(zip(found[::2], found[1::2], strict=True))


async def _acknowledge(redis: Any, entry_id: str) -> None:
    await redis.xack(STREAM, GROUP, entry_id)
    await redis.xdel(STREAM, entry_id)


def _write(file: Path, audio: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(audio)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_old(folder: Path, before: float) -> None:
    with suppress(FileNotFoundError):
        for file in folder.iterdir():
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < before:
                    file.unlink()
