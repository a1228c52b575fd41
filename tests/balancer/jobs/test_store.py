"""Both job stores fulfil the JobStore protocol, on a real disk and a real Redis."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.job import JobState
from balancer.jobs.store import IdempotencyError, JobResult, QueuedAhead
from tests.support.clock import Clock
from tests.support.harness import ROOT, environment
from tests.support.jobs import ERROR, RESULT, Opened, job


async def test_jobs_are_claimed_in_their_order_and_each_once(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1), job(2)])
        await store.add([job(3)])
        claimed = [await store.claims.claim_next() for _ in range(4)]
        assert [found and found.id for found in claimed] == ["job-1", "job-2", "job-3", None]
        assert [(found.state, found.attempts) for found in claimed[:3]] == [(JobState.RUNNING, 1)] * 3
        assert await store.get("job-2") == claimed[1]
        assert (await store.counts())[JobState.RUNNING] == 3


async def test_a_finished_job_has_its_audio_and_no_second_result(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        claimed = await store.claims.claim_next()
        assert await store.audio(claimed) is None
        assert await store.claims.finish(claimed, RESULT)
        done = await store.get("job-1")
        assert (done.state, done.seconds, done.digest, done.finished) == (JobState.DONE, 1.5, "digest", 1000.0)
        file = await store.audio(done)
        assert file.read_bytes() == b"RIFF audio"
        assert not await store.claims.finish(claimed, JobResult(MemoryBuffer(b"another"), 2.0, "x"))
        assert not await store.claims.fail(claimed, ERROR)
        assert (await store.get("job-1")) == done
        assert await store.claims.claim_next() is None
        counts = await store.counts()
        assert {state: count for state, count in counts.items() if count} == {JobState.DONE: 1}


async def test_jobs_and_characters_queued_ahead(opened: Opened) -> None:
    async with opened() as store:
        added = await store.add([job(number, characters=number * 10) for number in range(1, 5)])
        assert await store.places.ahead(added[0]) == QueuedAhead(0, 0)
        assert await store.places.ahead(added[3]) == QueuedAhead(3, 60)
        await store.claims.claim_next()
        assert await store.places.ahead(added[3]) == QueuedAhead(2, 50)


async def test_a_job_to_be_retried_later_is_claimed_when_it_is_due(opened: Opened) -> None:
    clock = Clock()
    async with opened(clock) as store:
        await store.add([job(1), job(2)])
        claimed = await store.claims.claim_next()
        assert await store.claims.retry_later(claimed, ERROR, clock.now + 5)
        assert (await store.claims.claim_next()).id == "job-2"
        assert await store.claims.claim_next() is None
        found = await store.get("job-1")
        assert (found.state, found.error, found.attempts) == (JobState.QUEUED, ERROR, 1)
        clock.now += 5
        again = await store.claims.claim_next()
        assert (again.id, again.attempts) == ("job-1", 2)


async def test_a_released_job_has_no_attempt_counted(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        await store.claims.release(await store.claims.claim_next())
        assert (await store.counts())[JobState.QUEUED] == 1
        assert (await store.claims.claim_next()).attempts == 1


async def test_a_failed_job_keeps_its_error_until_it_is_requeued(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        assert await store.requeue("job-1") is None
        assert await store.claims.fail(await store.claims.claim_next(), ERROR)
        assert await store.claims.claim_next() is None
        (failed,) = await store.failed(10)
        assert (failed.state, failed.error) == (JobState.FAILED, ERROR)
        await store.requeue("job-1")
        assert await store.failed(10) == []
        assert (await store.claims.claim_next()).attempts == 1


async def test_cancelling(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1), job(2), job(3)])
        running = await store.claims.claim_next()
        assert (await store.cancel("job-2")).state is JobState.CANCELLED
        assert (await store.cancel("job-1")).state is JobState.CANCELLED
        assert not await store.claims.finish(running, RESULT)
        assert (await store.claims.claim_next()).id == "job-3"
        assert (await store.cancel("job-2")).state is JobState.CANCELLED
        assert await store.cancel("job-9") is None
        assert await store.claims.claim_next() is None
        counts = await store.counts()
        assert (counts[JobState.CANCELLED], counts[JobState.RUNNING], counts[JobState.QUEUED]) == (2, 1, 0)


async def test_an_idempotency_key_belongs_to_one_request_of_one_caller(opened: Opened) -> None:
    async with opened() as store:
        first = job(1, idempotency_key="k")
        await store.add([first])
        (same,) = await store.add([job(2, idempotency_key="k", request_digest=first.request_digest)])
        assert same.id == "job-1"
        (other,) = await store.add([job(3, idempotency_key="k", caller="another")])
        assert other.id == "job-3"
        with pytest.raises(IdempotencyError):
            await store.add([job(4), job(5, idempotency_key="k")])
        assert await store.get("job-4") is None, "all or none"
        await store.claims.fail(await store.claims.claim_next(), ERROR)
        (same,) = await store.add([job(6, idempotency_key="k", request_digest=first.request_digest)])
        assert same.state is JobState.FAILED


async def test_webhooks_are_due_at_the_end_of_the_job_and_at_their_retries(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1, webhook="https://example.org/"), job(2)])
        await store.claims.finish(await store.claims.claim_next(), RESULT)
        await store.claims.finish(await store.claims.claim_next(), RESULT)
        assert await store.outbox.due(999.0) == []
        (due,) = await store.outbox.due(1000.0)
        assert (due.id, due.webhook_attempts) == ("job-1", 0)
        await store.outbox.record_attempt(due, due=1010.0, error="refused")
        assert await store.outbox.due(1000.0) == []
        (due,) = await store.outbox.due(1010.0)
        assert (due.webhook_attempts, due.webhook_error) == (1, "refused")
        await store.outbox.record_attempt(due, due=None, error=None)
        assert await store.outbox.due(1e6) == []


async def test_old_jobs_are_purged_with_their_audio_once_their_webhooks_are_delivered(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1, idempotency_key="k"), job(2, webhook="https://example.org/"), job(3)])
        done = await store.claims.claim_next()
        await store.claims.finish(done, RESULT)
        await store.claims.finish(await store.claims.claim_next(), RESULT)
        assert await store.retention.purge(1000.0) == 0
        assert await store.retention.purge(1000.1) == 1
        assert await store.get("job-1") is None
        assert await store.audio(done) is None or done.created < 1000.1
        assert (await store.get("job-3")).state is JobState.QUEUED
        (again,) = await store.add([job(4, idempotency_key="k")])
        assert again.id == "job-4"
        await store.outbox.record_attempt((await store.outbox.due(1e6))[0], due=None, error=None)
        assert await store.retention.purge(1000.1) == 1
        counts = await store.counts()
        assert {state: count for state, count in counts.items() if count} == {JobState.QUEUED: 2}


SHORT_LEASE = 2.0
"""Seconds for which the claim of a process holds that is to be killed; its holder renews it four times as often."""

CLAIMER = """
import asyncio, pathlib, sys
from balancer.redis.client import RedisClient
from balancer.jobs.redis.store import RedisJobStore
from balancer.jobs.sqlite.store import SqliteJobStore
async def main():
    folder, url, lease = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    store = RedisJobStore(RedisClient(url), folder / "spool", lease=lease) if url else SqliteJobStore(folder)
    while (job := await store.claims.claim_next()) is None:
        await asyncio.sleep(0.05)
    print(job.id, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_a_job_whose_process_was_killed_runs_again(
    opened: Opened, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis").url if "redis" in request.node.name else ""
    async with opened() as store:
        await store.add([job(1)])
        claimer = subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(tmp_path), url, str(SHORT_LEASE)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
        )
        assert claimer.stdout is not None
        try:
            assert await asyncio.to_thread(claimer.stdout.readline) == b"job-1\n"
            for _ in range(10):  # longer than a lease, which its holder renews
                assert await store.claims.claim_next() is None
                await asyncio.sleep(SHORT_LEASE / 5)
        finally:
            claimer.send_signal(signal.SIGKILL)
            claimer.wait()
            claimer.stdout.close()
        while (again := await store.claims.claim_next()) is None:
            await asyncio.sleep(0.02)
        assert (again.id, again.attempts) == ("job-1", 2)
        assert await store.claims.finish(again, RESULT)


async def test_only_the_latest_claim_ends_a_job(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        first = await store.claims.claim_next()
        await store.claims.retry_later(first, ERROR, 0.0)
        second = await store.claims.claim_next()
        assert not await store.claims.finish(first, JobResult(MemoryBuffer(b"first"), 1.0, "first"))
        assert await store.claims.finish(second, RESULT)
        assert (await store.get("job-1")).digest == "digest"
