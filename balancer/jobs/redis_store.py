"""Jobs in Redis, for several hosts: a stream that every host reads as one consumer of one group.

A host that has an idle worker reads the next entry; the entry is acknowledged when its job has ended. While a job
runs, its host says so every few seconds; an entry of which nothing has been heard for `lease` seconds is taken over by
the next host that asks. Each claim counts up the job's attempts, and only the latest claim can end a job: a host that
was thought dead and is not makes no second result.

Every change of a job is one script, so none is ever seen half made. Redis must be set up to keep what it has been given
(`appendonly yes`), and not to evict it (`maxmemory-policy noeviction`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from balancer.jobs.job import Job, JobError, JobState
from balancer.jobs.store import IdempotencyError, JobStoreError, QueuedAhead, Result
from balancer.redis_client import RedisClient, RedisUnavailableError

log = logging.getLogger(__name__)

GROUP = "hosts"
STREAM = "chorus:jobs"
JOB = "chorus:job:"
AUDIO = "chorus:job-audio:"
IDEMPOTENCY = "chorus:job-key:"
NUMBERS = "chorus:job-numbers"
COUNTS = "chorus:job-counts"
QUEUED = "chorus:jobs-queued"
"""By the order in which they came."""
LATER = "chorus:jobs-later"
"""Queued ones that are not due, by when they are."""
FINAL = "chorus:jobs-final"
"""By when they ended; so are those that failed."""
FAILED = "chorus:jobs-failed"
WEBHOOKS = "chorus:job-webhooks"
"""By when they are due."""
_KEYS = [STREAM, NUMBERS, COUNTS, QUEUED, LATER, FINAL, FAILED, WEBHOOKS]

LEASE_SECONDS = 15.0
WEBHOOK_LEASE_SECONDS = 60.0
"""A host that has taken a webhook and not told of it has died."""
COUNTED = 1000
"""Queued jobs whose characters are summed; from there on, the average has to do."""

_NAMES = """
local stream, numbers, counts, queued, later, final, failed, webhooks = unpack(KEYS)
"""

_ADD = f"""{_NAMES}
-- ARGV: triples of id, idempotency key (or nothing), digest, content, characters
local present = {{}}
for at = 1, #ARGV, 5 do
    local key = ARGV[at + 1]
    local earlier = key ~= '' and redis.call('GET', key)
    present[at] = earlier and redis.call('HEXISTS', '{JOB}' .. earlier, 'content') == 1 and earlier
    if present[at] and redis.call('HGET', '{JOB}' .. earlier, 'digest') ~= ARGV[at + 2] then return false end
end
local ids = {{}}
for at = 1, #ARGV, 5 do
    local id = present[at]
    if not id then
        id = ARGV[at]
        local number = redis.call('INCR', numbers)
        redis.call('HSET', '{JOB}' .. id, 'state', 'queued', 'attempts', 0, 'number', number, 'digest', ARGV[at + 2],
            'content', ARGV[at + 3], 'characters', ARGV[at + 4], 'key', ARGV[at + 1])
        if ARGV[at + 1] ~= '' then redis.call('SET', ARGV[at + 1], id) end
        redis.call('ZADD', queued, number, id)
        redis.call('HINCRBY', counts, 'queued', 1)
        redis.call('XADD', stream, '*', 'id', id)
    end
    ids[#ids + 1] = id
end
return ids
"""

_MOVE = f"""{_NAMES}
-- ARGV: id, states it may be in, attempts it must have (or nothing), new state, new attempts, new content, due,
--       finished, audio, when the webhook is due, entry of the stream
local id, from, claim, state, attempts, content, due, finished, audio, webhook, entry = unpack(ARGV)
local job = '{JOB}' .. id
local now = redis.call('HGET', job, 'state')
if not now or not string.find(from, now, 1, true) then return 0 end
if claim ~= '' and redis.call('HGET', job, 'attempts') ~= claim then return 0 end
redis.call('HSET', job, 'state', state, 'attempts', attempts, 'content', content)
redis.call('HINCRBY', counts, now, -1)
redis.call('HINCRBY', counts, state, 1)
redis.call('ZREM', queued, id)
redis.call('ZREM', later, id)
redis.call('ZREM', final, id)
redis.call('ZREM', failed, id)
if entry ~= '' and state ~= 'running' then
    redis.call('XACK', stream, '{GROUP}', entry)
    redis.call('XDEL', stream, entry)
end
if state == 'queued' then
    redis.call('ZADD', queued, redis.call('HGET', job, 'number'), id)
    if tonumber(due) > 0 then redis.call('ZADD', later, due, id) else redis.call('XADD', stream, '*', 'id', id) end
elseif state ~= 'running' then
    redis.call('ZADD', final, finished, id)
    if state == 'failed' then redis.call('ZADD', failed, finished, id) end
    if audio ~= '' then redis.call('SET', '{AUDIO}' .. id, audio) end
    if webhook ~= '' then redis.call('ZADD', webhooks, webhook, id) end
end
return 1
"""

_REQUEUE = f"""{_NAMES}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', ARGV[1], 'LIMIT', 0, 100)) do
    redis.call('ZREM', later, id)
    redis.call('XADD', stream, '*', 'id', id)
end
"""

_AHEAD = f"""{_NAMES}
local rank = redis.call('ZRANK', queued, ARGV[1])
if not rank then rank = redis.call('ZCARD', queued) end
local sum, ids = 0, redis.call('ZRANGE', queued, 0, math.min(rank, {COUNTED}) - 1)
if rank == 0 then ids = {{}} end
for _, id in ipairs(ids) do sum = sum + tonumber(redis.call('HGET', '{JOB}' .. id, 'characters') or 0) end
if #ids > 0 then sum = math.floor(sum * rank / #ids) end
return {{rank, sum}}
"""

_TAKE_WEBHOOKS = f"""{_NAMES}
local ids = redis.call('ZRANGEBYSCORE', webhooks, '-inf', ARGV[1], 'LIMIT', 0, 100)
for _, id in ipairs(ids) do redis.call('ZADD', webhooks, ARGV[2], id) end
return ids
"""

_TELL = f"""{_NAMES}
local id, content, due = unpack(ARGV)
if redis.call('EXISTS', '{JOB}' .. id) == 0 then return end
redis.call('HSET', '{JOB}' .. id, 'content', content)
if due == '' then redis.call('ZREM', webhooks, id) else redis.call('ZADD', webhooks, due, id) end
"""

_FORGET = f"""{_NAMES}
local dropped = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', final, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 1000)) do
    if not redis.call('ZSCORE', webhooks, id) then
        local job = '{JOB}' .. id
        redis.call('HINCRBY', counts, redis.call('HGET', job, 'state'), -1)
        local key = redis.call('HGET', job, 'key')
        if key ~= '' then redis.call('DEL', key) end
        redis.call('DEL', job, '{AUDIO}' .. id)
        redis.call('ZREM', final, id)
        redis.call('ZREM', failed, id)
        dropped = dropped + 1
    end
end
return dropped
"""

T = TypeVar("T")


class RedisJobStore:
    """Keeps jobs in Redis; `spool` is a folder of this host for audio on its way to clients."""

    def __init__(
        self, redis: RedisClient, spool: Path, *, lease: float = LEASE_SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._spool = spool
        self._lease = lease
        self._clock = clock
        self._consumer = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._entries: dict[tuple[str, int], str] = {}
        """Stream entries of the claims that this host holds."""
        self._beating: asyncio.Task[None] | None = None

    # What JobStore promises.

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """See JobStore."""
        arguments: list[str | int] = []
        for job in jobs:
            key = "" if job.idempotency_key is None else f"{IDEMPOTENCY}{job.caller}:{job.idempotency_key}"
            arguments += [job.id, key, job.request_digest, job.model_dump_json(), job.characters]
        ids = await self._script(_ADD, *arguments)
        if ids is None:
            raise IdempotencyError
        added = [await self.get(id_.decode()) for id_ in ids]
        return [job for job in added if job is not None]

    async def get(self, job_id: str) -> Job | None:
        """See JobStore."""
        content = await self._do(lambda redis: redis.hget(f"{JOB}{job_id}", "content"))
        return None if content is None else Job.model_validate_json(content)

    async def ahead(self, job: Job) -> QueuedAhead:
        """See JobStore."""
        jobs, characters = await self._script(_AHEAD, job.id)
        return QueuedAhead(jobs, characters)

    async def claim(self) -> Job | None:
        """See JobStore."""
        await self._script(_REQUEUE, self._clock())
        while (entry := await self._do(self._next_entry)) is not None:
            entry_id, job_id = entry
            job = await self.get(job_id)
            if job is not None and not job.state.final:
                running = job.claimed(self._clock())
                if await self._move(job, running, from_states=(JobState.QUEUED, JobState.RUNNING), entry=entry_id):
                    self._entries[running.id, running.attempts] = entry_id
                    self._beat()
                    return running
            await self._do(partial(_acknowledge, entry_id=entry_id))
        return None

    async def finish(self, job: Job, result: Result) -> bool:
        """See JobStore."""
        done = job.done(self._clock(), seconds=result.seconds, digest=result.digest)
        return await self._end(job, done, result.audio)

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
            audio = await self._do(lambda redis: redis.get(f"{AUDIO}{job.id}"))
            if audio is None:
                return None
            try:
                await asyncio.to_thread(_write, file, audio)
            except OSError as error:
                raise JobStoreError(f"audio of jobs cannot be put into {self._spool}: {error}") from error
        return file

    async def counts(self) -> dict[JobState, int]:
        """See JobStore."""
        found = await self._do(lambda redis: redis.hgetall(COUNTS))
        return {state: int(found.get(state.value.encode(), 0)) for state in JobState}

    async def failed(self, limit: int) -> list[Job]:
        """See JobStore."""
        ids = await self._do(lambda redis: redis.zrevrange(FAILED, 0, limit - 1))
        return await self._jobs(ids)

    async def requeue(self, job_id: str) -> Job | None:
        """See JobStore."""
        job = await self.get(job_id)
        if job is None:
            return None
        again = job.requeued()
        return again if await self._move(job, again, from_states=(JobState.FAILED,)) else None

    async def webhooks_due(self, now: float) -> list[Job]:
        """See JobStore. No other host is given them for the next minute."""
        return await self._jobs(await self._script(_TAKE_WEBHOOKS, now, now + WEBHOOK_LEASE_SECONDS))

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """See JobStore."""
        now = await self.get(job.id)
        if now is not None:
            await self._script(
                _TELL,
                job.id,
                now.after_webhook_attempt(due=due, error=error).model_dump_json(),
                "" if due is None else due,
            )

    async def purge(self, before: float) -> int:
        """See JobStore."""
        await asyncio.to_thread(_remove_old, self._spool, before)
        dropped: int = await self._script(_FORGET, before)
        return dropped

    async def aclose(self) -> None:
        """See JobStore. Other hosts take over this host's claims after the lease. The Redis client stays open."""
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating

    # How.

    async def _next_entry(self, redis: Any) -> tuple[str, str] | None:
        """An entry and its job's id: one that a dead host left, else the next."""
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
            with suppress(ResponseError):  # another host has just made it
                await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            return await self._next_entry(redis)
        if not entries:
            return None
        entry_id, fields = entries[0]
        return entry_id.decode(), fields[b"id"].decode()

    async def _end(self, claimed: Job, job: Job, audio: bytes = b"") -> bool:
        """Move a job on from a claim, if that still holds."""
        entry = self._entries.get((claimed.id, claimed.attempts), "")
        moved = await self._move(
            claimed, job, from_states=(JobState.RUNNING,), claim=claimed.attempts, audio=audio, entry=entry
        )
        self._entries.pop((claimed.id, claimed.attempts), None)
        return moved

    async def _move(
        self,
        before: Job,
        job: Job,
        *,
        from_states: tuple[JobState, ...],
        claim: int | None = None,
        audio: bytes = b"",
        entry: str = "",
    ) -> bool:
        return bool(
            await self._script(
                _MOVE,
                job.id,
                " ".join(from_states),
                before.attempts if claim is None else claim,
                job.state.value,
                job.attempts,
                job.model_dump_json(),
                job.due,
                job.finished or 0,
                audio,
                "" if job.webhook_due is None else job.webhook_due,
                entry,
            )
        )

    async def _jobs(self, ids: Sequence[bytes]) -> list[Job]:
        found = [await self.get(id_.decode()) for id_ in ids]
        return [job for job in found if job is not None]

    def _beat(self) -> None:
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._keep_claims())

    async def _keep_claims(self) -> None:
        """Say of every claim that it is still held, as long as there are any."""
        while self._entries:
            await asyncio.sleep(self._lease / 4)
            if self._entries:
                with suppress(JobStoreError):
                    await self._do(
                        lambda redis: redis.xclaim(
                            STREAM, GROUP, self._consumer, 0, list(self._entries.values()), justid=True
                        )
                    )

    async def _script(self, script: str, *arguments: Any) -> Any:
        return await self._do(lambda redis: redis.register_script(script)(_KEYS, arguments))

    async def _do(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await self._redis.execute(work)
        except RedisUnavailableError as error:
            raise JobStoreError(str(error)) from error


async def _acknowledge(redis: Any, entry_id: str) -> None:
    await redis.xack(STREAM, GROUP, entry_id)
    await redis.xdel(STREAM, entry_id)


def _write(file: Path, audio: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        aside.write_bytes(audio)
        aside.replace(file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _remove_old(folder: Path, before: float) -> None:
    with suppress(FileNotFoundError):
        for file in folder.iterdir():
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < before:
                    file.unlink()
