"""Jobs in Redis, for several hosts: sorted sets of queued jobs by turn, and of running jobs by the end of their lease.

A host with an idle worker claims the first job in the order of turns. While a job runs, its host renews its claim every
few seconds; when a claim has not been renewed for `lease` seconds, the next host that asks takes the job over. Each
claim increments the job's attempts, and only the latest claim can end the job, so a host that was wrongly taken for
dead produces no second result. Leases are measured by the clock of Redis.

Every change of a job is one Lua script (`lua/*.lua`), so no reader sees a change half made. Redis must persist what it
is given (`appendonly yes`) and must not evict it (`maxmemory-policy noeviction`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job, JobError, JobState, KeptCounts, UnreadableJobError, read_job, stand_in
from balancer.jobs.store import (
    ANY_ROOM,
    LONG_CHARACTERS,
    MAX_DUE_SECONDS,
    MAX_WEBHOOK_DUE_SECONDS,
    DeliveryRoom,
    IdempotencyError,
    JobLimits,
    JobResult,
    JobStoreError,
    QueuedAhead,
    StoreFullError,
)
from balancer.redis.client import RedisClient, RedisUnavailableError, Script
from balancer.runtime.thread_pool import ThreadPool

log = logging.getLogger(__name__)

JOB = "chorus:job:"
AUDIO = "chorus:job-audio:"
IDEMPOTENCY = "chorus:job-key:"
AUDIO_PART = "chorus:job-audio-part:"
"""Audio that is being sent. It expires, unless a transition makes it the audio of its job."""
WEBHOOKS = "chorus:job-webhooks:"
"""Sorted sets, one for each caller: its jobs whose webhook is to be delivered, by the time when it is due."""
SEGMENTS = "chorus:job-segments:"
"""Hashes, one for each job that is spoken in segments: their PCM by number."""
_KEYS = [
    "chorus:job-numbers",
    "chorus:job-counts",  # jobs in each state, bytes of all audio, the turn that jobs are claimed in now
    "chorus:jobs-turns",  # sorted set: queued jobs that are due, by turn
    "chorus:jobs-later",  # sorted set: queued jobs that are not due yet, by the time when they are
    "chorus:job-leases",  # sorted set: running jobs, by the end of their lease
    "chorus:jobs-final",  # sorted set: final jobs, by the time when they ended
    "chorus:jobs-failed",  # sorted set: failed jobs, by the time when they ended
    "chorus:job-webhook-callers",  # set: callers that have webhooks to be delivered
    # Hashes by caller: its queued jobs, its running jobs, the bytes of its audio, the turn of its last queued job.
    "chorus:jobs-queued-by",
    "chorus:jobs-running-by",
    "chorus:job-sizes-by",
    "chorus:job-last-turns",
    JOB,
    AUDIO,
    WEBHOOKS,
    SEGMENTS,
]
"""KEYS of every script, in the order in which `index.lua` numbers them; the last four are prefixes of keys."""
FAILED = _KEYS[6]
COUNTS = _KEYS[1]

_KEPT = ("kept", "kept_size", "playable", "playable_size")
"""Fields of a job's hash with its KeptCounts."""

EARLIER_KEYS = ("chorus:jobs", "chorus:jobs-queued", "chorus:job-webhooks")
"""Stream, queue and webhooks of an earlier version, whose jobs are taken over."""

LEASE_SECONDS = 15.0
WEBHOOK_LEASE_SECONDS = 60.0
"""A host that has claimed a webhook and recorded no attempt for so long is taken for dead."""
MAX_COUNTED = 100
"""Queued jobs whose characters are summed one by one; where there are more, their average stands for the rest."""
PIECE_BYTES = 2**20
"""The audio of a job is sent and fetched in pieces of this size."""
PART_SECONDS = 600
"""How long the pieces of a host that has died are kept."""
SPOOL_SECONDS = 3600.0
"""How long this host keeps the audio of a job after a client has fetched it."""
MAX_CLAIM_TRIES = 100
"""Jobs that one claim looks at: others may take them first, or they may have to be set aside."""

T = TypeVar("T")


class RedisJobStore:
    """A JobStore in Redis. `spool` is a folder of this host for audio on its way to clients; `clock` gives Unix time.

    A claim that is not renewed for `lease` seconds passes to another host.
    """

    max_result_bytes = 512 * 2**20
    """Redis's limit of a value."""

    def __init__(
        self,
        redis: RedisClient,
        spool: Path,
        *,
        lease: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
        limits: JobLimits | None = None,
    ) -> None:
        self._redis = redis
        self._spool = spool
        self._lease = lease
        self._clock = clock
        self._limits = limits or JobLimits()
        self._pool = ThreadPool("job-files", 2)
        self.unreadable = 0
        self._claims: set[tuple[str, int]] = set()
        """The claims that this host holds, by job id and attempt."""
        self._renewal: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._upgraded = False

        def load(name: str) -> Script:
            return redis.load_script("balancer.jobs", "index", name, durable=True)

        self._add_script = load("add")
        self._pick_script = load("pick")
        self._renew_script = load("renew")
        self._transition_script = load("transition")
        self._begin_segments_script = load("begin_segments")
        self._keep_segment_script = load("keep_segment")
        self._ahead_script = load("ahead")
        self._claim_webhooks_script = load("claim_webhooks")
        self._record_webhook_attempt_script = load("record_webhook_attempt")
        self._purge_script = load("purge")
        self._delete_script = load("delete")
        self._evict_script = load("evict")
        self._upgrade_script = load("upgrade")

    # The methods of JobStore.

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """See JobStore."""
        caller, limits = jobs[0].caller_id, self._limits
        arguments: list[str | int] = [caller, limits.queued, limits.caller_queued, *self._audio_limits()]
        for job in jobs:
            key = "" if job.idempotency_key is None else _idempotency_key(caller, job.idempotency_key)
            concurrency = "" if job.concurrency is None else job.concurrency
            arguments += [job.id, key, job.request_digest, job.model_dump_json(), job.characters, concurrency]
            arguments += [job.webhook or "", job.expected_size]
        kind, *answer = await self._run(self._add_script, *arguments)
        if kind == b"conflict":
            raise IdempotencyError
        if kind == b"full":
            raise _full(answer)
        own_jobs = {job.id: job for job in jobs}
        added = [own_jobs.get(id_) or await self.get(id_) for id_ in (id_.decode() for id_ in answer)]
        return [job for job in added if job is not None]

    def _audio_limits(self) -> tuple[int, int]:
        if self._limits.evicts:
            return 2**53, 2**53
        return self._limits.audio_bytes, self._limits.caller_audio_bytes

    async def get(self, job_id: str) -> Job | None:
        """See JobStore."""
        fields = ("content", "state", "attempts", "caller", "key", *_KEPT)
        content, state, attempts, caller, key, *kept = await self._execute(
            lambda redis: redis.hmget(f"{JOB}{job_id}", *fields)
        )
        if content is None and state is None:
            return None
        try:
            return read_job(job_id, content or b"", _kept(kept))
        except UnreadableJobError as error:
            return await self._set_aside(job_id, content or b"", state, attempts, caller or b"", key or b"", error)

    async def _set_aside(
        self,
        job_id: str,
        content: bytes,
        state: bytes | None,
        attempts: bytes | None,
        caller: bytes,
        key: bytes,
        error: UnreadableJobError,
    ) -> Job:
        caller_id = caller.decode(errors="replace")
        idempotency_key = key.decode(errors="replace").removeprefix(_idempotency_key(caller_id, "")) or None
        count = int(attempts) if attempts is not None and attempts.isdigit() else 0
        job = stand_in(job_id, caller_id, self._clock(), error, attempts=count, idempotency_key=idempotency_key)
        self.unreadable += 1
        log.error("job %s cannot be read, and has failed: %s", job_id, error)
        await self._transition(job, (state or b"").decode(errors="replace"), "", unreadable=content)
        return job

    async def ahead(self, job: Job) -> QueuedAhead:
        """See JobStore."""
        return (await self.ahead_all([job]))[0]

    async def ahead_all(self, jobs: Sequence[Job]) -> list[QueuedAhead]:
        """See JobStore."""
        answer = await self._run(self._ahead_script, MAX_COUNTED, *(job.id for job in jobs))
        return [QueuedAhead(*pair) for pair in zip(answer[::2], answer[1::2], strict=True)]

    async def look(self, job_ids: Collection[str]) -> dict[str, tuple[Job, QueuedAhead]]:
        """See JobStore."""
        contents = await self._execute(partial(_contents, job_ids=job_ids))
        jobs = []
        for job_id, (content, *kept) in zip(job_ids, contents, strict=True):
            try:
                job = None if content is None else read_job(job_id, content, _kept(kept))
            except UnreadableJobError:
                job = await self.get(job_id)  # which sets it aside
            if job is not None:
                jobs.append(job)
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        ahead = dict(zip((job.id for job in queued), await self.ahead_all(queued), strict=True)) if queued else {}
        return {job.id: (job, ahead.get(job.id, QueuedAhead(0, 0))) for job in jobs}

    async def claim(self, without_long_of: Collection[str] | None = ()) -> Job | None:
        """See JobStore."""
        if not self._upgraded:
            await self._upgrade()
        callers = json.dumps(None if without_long_of is None else dict.fromkeys(without_long_of, True))
        for _ in range(MAX_CLAIM_TRIES):
            now = self._clock()
            picked = await self._run(
                self._pick_script, now, now + MAX_DUE_SECONDS, *self._audio_limits(), LONG_CHARACTERS, callers
            )
            if picked is None:
                return None
            job = await self.get(picked.decode())
            if job is None or job.state.final:
                continue
            running = job.claimed(now, self._limits.reserved(job.expected_size))
            moved = False
            with suppress(StoreFullError):  # another host has taken the room
                moved = await self._move(job, running, from_states=(JobState.QUEUED, JobState.RUNNING))
            if moved:
                self._claims.add((running.id, running.attempts))
                self._ensure_renewal()
                return running
        return None

    async def _upgrade(self) -> None:
        """Take over the jobs that hosts of an earlier version have left, or still add."""
        if await self._execute(lambda redis: redis.exists(*EARLIER_KEYS)):
            await self._run(self._upgrade_script, *EARLIER_KEYS, round(self._lease * 1000))
            log.warning("the jobs of an earlier version in Redis were taken over; its hosts no longer see them")
        self._upgraded = True

    async def finish(self, job: Job, result: JobResult) -> bool:
        """See JobStore."""
        done = job.done(self._clock(), seconds=result.seconds, digest=result.digest, size=len(result.audio))
        async with self._sending:  # the audio of one job at a time
            part = await self._send(f"{AUDIO_PART}{job.id}:{job.attempts}", result.audio)
            return await self._end(job, done, part)

    async def _send(self, part: str, audio: AudioBuffer) -> str:
        """Send audio to the key `part`, in pieces; returns the key, empty where there is no audio."""
        await self._execute(lambda redis: redis.delete(part))
        for start in range(0, len(audio), PIECE_BYTES):
            piece = await self._pool.run(partial(audio.read, start, min(PIECE_BYTES, len(audio) - start)))
            await self._execute(partial(_send_piece, part=part, start=start, piece=piece))
        return part if len(audio) else ""

    async def begin_segments(self, job: Job, plan: str, total: int) -> tuple[Job, Collection[int]] | None:
        """See JobStore."""
        kept = await self._execute(lambda redis: redis.hmget(f"{JOB}{job.id}", "plan", "kept"))
        done = int(kept[1] or 0) if kept[0] == plan.encode() else 0
        begun = job.with_plan(plan, total, done)
        numbers = await self._run(self._begin_segments_script, job.id, job.attempts, plan, begun.model_dump_json())
        return None if numbers is None else (begun, {int(number) for number in numbers})

    async def keep_segment(self, job: Job, number: int, audio: AudioBuffer) -> bool:
        """See JobStore."""
        content = await self._pool.run(lambda: bytes(audio))
        limits = self._audio_limits()
        kept, *full = await self._run(self._keep_segment_script, job.id, job.attempts, number, content, *limits)
        if full:
            raise _full(full)
        return bool(kept)

    async def segment(self, job: Job, number: int) -> bytes | None:
        """See JobStore."""
        plan, content = await self._execute(partial(_segment_and_plan, job_id=job.id, number=number))
        return content if plan == job.plan.encode() else None

    async def segment_files(self, job: Job) -> Sequence[Path]:
        """See JobStore: they are copies, in the spool."""
        files = []
        try:
            for number in sorted(map(int, await self._execute(lambda redis: redis.hkeys(f"{SEGMENTS}{job.id}")))):
                content = await self._execute(partial(_segment, job_id=job.id, number=number))
                files.append(self._spooled_segments(job) / f"{number:06}")
                await self._pool.run(partial(_write, files[-1], content))
        except OSError as error:
            raise JobStoreError(f"the segments of jobs cannot be written to {self._spool}: {error}") from error
        return files

    async def fail(self, job: Job, error: JobError) -> bool:
        """See JobStore."""
        return await self._end(job, job.failed(self._clock(), error))

    async def retry_later(self, job: Job, error: JobError, due: float, *, counts: bool = True) -> bool:
        """See JobStore."""
        return await self._end(job, job.queued_for_retry(error, due, counts=counts))

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

    async def delete(self, job_id: str) -> Job | None:
        """See JobStore."""
        job = await self.get(job_id)
        if job is not None and job.state.final and await self._run(self._delete_script, job_id):
            with suppress(OSError):
                await self._pool.run(lambda: self._spooled(job).unlink(missing_ok=True))
        return job

    async def audio(self, job: Job) -> Path | None:
        """See JobStore."""
        file = self._spooled(job)
        try:
            return file if await self._pool.run(file.exists) or await self._fetch(job, file) else None
        except OSError as error:
            raise JobStoreError(f"the audio of jobs cannot be written to {self._spool}: {error}") from error

    async def _fetch(self, job: Job, file: Path) -> bool:
        """Copy the audio of a job to a file, in pieces; False if there is none, or not all of it. Raises OSError."""
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        size = 0
        try:
            while piece := await self._execute(partial(_piece, job_id=job.id, start=size)):
                await self._pool.run(partial(_append, temporary, piece))
                size += len(piece)
            complete = size > 0 and job.size in (0, size)  # 0: the host that made it was of an earlier version
            if complete:
                await self._pool.run(partial(temporary.replace, file))
            return complete
        finally:
            self._pool.start(partial(temporary.unlink, missing_ok=True))

    async def counts(self) -> dict[JobState, int]:
        """See JobStore."""
        found = await self._execute(lambda redis: redis.hgetall(COUNTS))
        return {state: int(found.get(state.value.encode(), 0)) for state in JobState}

    async def audio_bytes(self) -> int:
        """See JobStore."""
        return int(await self._execute(lambda redis: redis.hget(COUNTS, "size")) or 0)

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

    async def webhooks_due(self, now: float, room: DeliveryRoom = ANY_ROOM) -> list[Job]:
        """See JobStore. No other host gets them for WEBHOOK_LEASE_SECONDS."""
        receivers: dict[str, dict[str, int]] = {}
        for (caller, url), count in room.receivers.items():
            receivers.setdefault(caller, {})[url] = count
        ids = await self._run(
            self._claim_webhooks_script,
            *(now, now + MAX_WEBHOOK_DUE_SECONDS, now + WEBHOOK_LEASE_SECONDS),
            *(room.total, room.per_caller, room.per_receiver),
            json.dumps(dict(room.callers)),
            json.dumps(receivers),
            json.dumps(dict.fromkeys(room.running, True)),
        )
        jobs = await self._jobs(ids)
        return [job for job in jobs if job.webhook is not None]

    async def postpone_webhook(self, job: Job, *, due: float) -> None:
        """See JobStore."""
        await self._record_webhook(job, lambda current: current.with_webhook_due(due))

    async def record_webhook_attempt(self, job: Job, *, due: float | None, error: str | None) -> None:
        """See JobStore."""
        await self._record_webhook(job, lambda current: current.after_webhook_attempt(due=due, error=error))

    async def _record_webhook(self, job: Job, change: Callable[[Job], Job]) -> None:
        current = await self.get(job.id)
        if current is not None:
            after = change(current)
            due = "" if after.webhook_due is None else after.webhook_due
            await self._run(self._record_webhook_attempt_script, job.id, after.model_dump_json(), due)

    async def purge(self, before: float) -> int:
        """See JobStore."""
        await self._pool.run(lambda: _remove_old(self._spool, time.time() - SPOOL_SECONDS))
        await self._upgrade()
        deleted: int = await self._run(self._purge_script, before)
        return deleted

    async def evict(self) -> int:
        """See JobStore."""
        if not self._limits.evicts:
            return 0
        limits = self._limits.audio_bytes, self._limits.caller_audio_bytes
        deleted: int = await self._run(self._evict_script, *limits)
        return deleted

    async def stop_claiming(self) -> None:
        """See JobStore: any process may claim what this one has not claimed."""

    async def aclose(self) -> None:
        """See JobStore. Other hosts take over this host's claims after the lease. The Redis client stays open."""
        self._claims.clear()  # ends the renewal even where redis-py takes its cancellation for a timeout
        if self._renewal is not None:
            self._renewal.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewal
        self._pool.close()

    # Helpers.

    async def _end(self, claimed: Job, job: Job, part: str = "") -> bool:
        """Move a job out of its claim; False where the claim no longer holds. `part` is the key of its audio."""
        moved = await self._move(claimed, job, from_states=(JobState.RUNNING,), part=part)
        self._claims.discard((claimed.id, claimed.attempts))
        self._pool.start(partial(shutil.rmtree, self._spooled_segments(claimed), ignore_errors=True))
        return moved

    async def _move(self, before: Job, after: Job, *, from_states: tuple[JobState, ...], part: str = "") -> bool:
        """Replace a job; False where it is in none of those states, or has been claimed again since `before`."""
        return await self._transition(after, " ".join(from_states), before.attempts, part=part)

    async def _transition(
        self, after: Job, from_states: str, attempts: int | str, *, part: str = "", unreadable: bytes = b""
    ) -> bool:
        moved, *full = await self._run(
            self._transition_script,
            *(after.id, from_states, attempts),
            *(after.state.value, after.attempts, after.model_dump_json()),
            *(after.due, after.finished or 0, round(self._lease * 1000)),
            *(part, after.size, "" if after.webhook_due is None else after.webhook_due, unreadable),
            *(after.plan, after.expected_size, *self._audio_limits()),
        )
        if full:
            raise _full(full)
        return bool(moved)

    async def _jobs(self, ids: Sequence[bytes]) -> list[Job]:
        found = [await self.get(id_.decode()) for id_ in ids]
        return [job for job in found if job is not None]

    def _ensure_renewal(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew_claims())

    async def _renew_claims(self) -> None:
        """Renew every claim of this host, for as long as there are any."""
        while self._claims:
            await asyncio.sleep(self._lease / 4)
            with suppress(JobStoreError):
                claims = [str(part) for claim in self._claims for part in claim]
                await self._run(self._renew_script, round(self._lease * 1000), *claims)

    def _spooled(self, job: Job) -> Path:
        return self._spool / f"{job.id}{job.suffix}"

    def _spooled_segments(self, job: Job) -> Path:
        return self._spool / f"{job.id}.segments"

    async def _run(self, script: Script, *arguments: Any) -> Any:
        return await self._execute(lambda _: script(_KEYS, arguments))

    async def _execute(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await self._redis.execute(work)
        except RedisUnavailableError as error:
            raise JobStoreError(str(error)) from error


def _full(answer: Sequence[bytes | int]) -> StoreFullError:
    audio, own, used, limit, needed = map(int, answer)
    return StoreFullError(used, limit, needed, audio=bool(audio), own=bool(own))


def _idempotency_key(caller_id: str, key: str) -> str:
    """The Redis key of an idempotency key. The length keeps callers apart whose names contain colons."""
    return f"{IDEMPOTENCY}{len(caller_id)}:{caller_id}:{key}"


async def _piece(redis: Any, job_id: str, start: int) -> bytes:
    """Up to PIECE_BYTES of the audio of a job; empty behind its end."""
    piece: bytes = await redis.getrange(f"{AUDIO}{job_id}", start, start + PIECE_BYTES - 1)
    return piece


async def _send_piece(redis: Any, part: str, start: int, piece: bytes) -> None:
    pipeline = redis.pipeline(transaction=True)
    pipeline.setrange(part, start, piece)  # not `append`: the client may send a command twice
    pipeline.expire(part, PART_SECONDS)
    await pipeline.execute()


async def _segment(redis: Any, job_id: str, number: int) -> bytes:
    return await redis.hget(f"{SEGMENTS}{job_id}", number) or b""


async def _segment_and_plan(redis: Any, job_id: str, number: int) -> tuple[bytes | None, bytes | None]:
    """The plan that a job's segments are of, and one of them; None where there is none."""
    pipeline = redis.pipeline(transaction=True)
    pipeline.hget(f"{JOB}{job_id}", "plan")
    pipeline.hget(f"{SEGMENTS}{job_id}", number)
    plan, content = await pipeline.execute()
    return plan, content


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.write_bytes(content)


def _append(file: Path, piece: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file.open("ab") as output:
        output.write(piece)


def _remove_old(folder: Path, before: float) -> None:
    with suppress(FileNotFoundError):
        for entry in folder.iterdir():
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime >= before:
                    continue
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()


def _kept(fields: Sequence[bytes | None]) -> KeptCounts:
    return KeptCounts(*(int(field or 0) for field in fields))


async def _contents(redis: Any, job_ids: Collection[str]) -> list[list[bytes | None]]:
    """The content of each of these jobs, and its fields _KEPT; None where there is none."""
    pipeline = redis.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.hmget(f"{JOB}{job_id}", "content", *_KEPT)
    found: list[list[bytes | None]] = await pipeline.execute()
    return found
