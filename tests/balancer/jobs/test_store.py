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
from balancer.jobs.redis_store import RedisJobStore
from balancer.jobs.sqlite_store import SqliteJobStore
from balancer.jobs.store import IdempotencyError, JobResult, JobStoreError, QueuedAhead
from balancer.redis.client import RedisClient
from tests.support.clock import Clock
from tests.support.harness import ROOT, environment
from tests.support.jobs import ERROR, LEASE, RESULT, Opened, found, job
from tests.support.redis_server import start_redis


async def test_jobs_are_claimed_in_their_order_and_each_once(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1), job(2)])
        await store.add([job(3)])
        claimed = [await store.claim() for _ in range(4)]
        assert [found and found.id for found in claimed] == ["job-1", "job-2", "job-3", None]
        assert [(found.state, found.attempts) for found in claimed[:3]] == [(JobState.RUNNING, 1)] * 3
        assert await store.get("job-2") == claimed[1]
        assert (await store.counts())[JobState.RUNNING] == 3


async def test_a_finished_job_has_its_audio_and_no_second_result(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        claimed = await store.claim()
        assert await store.audio(claimed) is None
        assert await store.finish(claimed, RESULT)
        done = await store.get("job-1")
        assert (done.state, done.seconds, done.digest, done.finished) == (JobState.DONE, 1.5, "digest", 1000.0)
        file = await store.audio(done)
        assert file.read_bytes() == b"RIFF audio"
        assert not await store.finish(claimed, JobResult(MemoryBuffer(b"another"), 2.0, "x"))
        assert not await store.fail(claimed, ERROR)
        assert (await store.get("job-1")) == done
        assert await store.claim() is None
        counts = await store.counts()
        assert {state: count for state, count in counts.items() if count} == {JobState.DONE: 1}


async def test_jobs_and_characters_queued_ahead(opened: Opened) -> None:
    async with opened() as store:
        added = await store.add([job(number, characters=number * 10) for number in range(1, 5)])
        assert await store.ahead(added[0]) == QueuedAhead(0, 0)
        assert await store.ahead(added[3]) == QueuedAhead(3, 60)
        await store.claim()
        assert await store.ahead(added[3]) == QueuedAhead(2, 50)


async def test_a_job_to_be_retried_later_is_claimed_when_it_is_due(opened: Opened) -> None:
    clock = Clock()
    async with opened(clock) as store:
        await store.add([job(1), job(2)])
        claimed = await store.claim()
        assert await store.retry_later(claimed, ERROR, clock.now + 5)
        assert (await store.claim()).id == "job-2"
        assert await store.claim() is None
        found = await store.get("job-1")
        assert (found.state, found.error, found.attempts) == (JobState.QUEUED, ERROR, 1)
        clock.now += 5
        again = await store.claim()
        assert (again.id, again.attempts) == ("job-1", 2)


async def test_a_released_job_has_no_attempt_counted(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        await store.release(await store.claim())
        assert (await store.counts())[JobState.QUEUED] == 1
        assert (await store.claim()).attempts == 1


async def test_a_failed_job_keeps_its_error_until_it_is_requeued(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        assert await store.requeue("job-1") is None
        assert await store.fail(await store.claim(), ERROR)
        assert await store.claim() is None
        (failed,) = await store.failed(10)
        assert (failed.state, failed.error) == (JobState.FAILED, ERROR)
        await store.requeue("job-1")
        assert await store.failed(10) == []
        assert (await store.claim()).attempts == 1


async def test_cancelling(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1), job(2), job(3)])
        running = await store.claim()
        assert (await store.cancel("job-2")).state is JobState.CANCELLED
        assert (await store.cancel("job-1")).state is JobState.CANCELLED
        assert not await store.finish(running, RESULT)
        assert (await store.claim()).id == "job-3"
        assert (await store.cancel("job-2")).state is JobState.CANCELLED
        assert await store.cancel("job-9") is None
        assert await store.claim() is None
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
        await store.fail(await store.claim(), ERROR)
        (same,) = await store.add([job(6, idempotency_key="k", request_digest=first.request_digest)])
        assert same.state is JobState.FAILED


async def test_webhooks_are_due_at_the_end_of_the_job_and_at_their_retries(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1, webhook="https://example.org/"), job(2)])
        await store.finish(await store.claim(), RESULT)
        await store.finish(await store.claim(), RESULT)
        assert await store.webhooks_due(999.0) == []
        (due,) = await store.webhooks_due(1000.0)
        assert (due.id, due.webhook_attempts) == ("job-1", 0)
        await store.record_webhook_attempt(due, due=1010.0, error="refused")
        assert await store.webhooks_due(1000.0) == []
        (due,) = await store.webhooks_due(1010.0)
        assert (due.webhook_attempts, due.webhook_error) == (1, "refused")
        await store.record_webhook_attempt(due, due=None, error=None)
        assert await store.webhooks_due(1e6) == []


async def test_old_jobs_are_purged_with_their_audio_once_their_webhooks_are_delivered(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1, idempotency_key="k"), job(2, webhook="https://example.org/"), job(3)])
        done = await store.claim()
        await store.finish(done, RESULT)
        await store.finish(await store.claim(), RESULT)
        assert await store.purge(1000.0) == 0
        assert await store.purge(1000.1) == 1
        assert await store.get("job-1") is None
        assert await store.audio(done) is None or done.created < 1000.1
        assert (await store.get("job-3")).state is JobState.QUEUED
        (again,) = await store.add([job(4, idempotency_key="k")])
        assert again.id == "job-4"
        await store.record_webhook_attempt((await store.webhooks_due(1e6))[0], due=None, error=None)
        assert await store.purge(1000.1) == 1
        counts = await store.counts()
        assert {state: count for state, count in counts.items() if count} == {JobState.QUEUED: 2}


SHORT_LEASE = 2.0
"""Seconds for which the claim of a process holds that is to be killed; its holder renews it four times as often."""

CLAIMER = """
import asyncio, pathlib, sys
from balancer.jobs.redis_store import RedisJobStore
from balancer.jobs.sqlite_store import SqliteJobStore
from balancer.redis.client import RedisClient
async def main():
    folder, url, lease = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    store = RedisJobStore(RedisClient(url), folder / "spool", lease=lease) if url else SqliteJobStore(folder)
    while (job := await store.claim()) is None:
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
                assert await store.claim() is None
                await asyncio.sleep(SHORT_LEASE / 5)
        finally:
            claimer.send_signal(signal.SIGKILL)
            claimer.wait()
            claimer.stdout.close()
        while (again := await store.claim()) is None:
            await asyncio.sleep(0.02)
        assert (again.id, again.attempts) == ("job-1", 2)
        assert await store.finish(again, RESULT)


async def test_only_the_latest_claim_ends_a_job(opened: Opened) -> None:
    async with opened() as store:
        await store.add([job(1)])
        first = await store.claim()
        await store.retry_later(first, ERROR, 0.0)
        second = await store.claim()
        assert not await store.finish(first, JobResult(MemoryBuffer(b"first"), 1.0, "first"))
        assert await store.finish(second, RESULT)
        assert (await store.get("job-1")).digest == "digest"


async def test_two_processes_of_one_folder_do_not_both_run_jobs(tmp_path: Path) -> None:
    one, other = SqliteJobStore(tmp_path), SqliteJobStore(tmp_path)
    await one.add([job(1), job(2)])
    assert (await one.claim()) is not None
    assert await other.claim() is None
    assert found(await other.get("job-1")).state is JobState.RUNNING
    await one.aclose()
    assert found(await other.claim()).id == "job-1"
    await other.aclose()


async def test_added_jobs_survive_the_death_of_the_process(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, pathlib, signal
from balancer.jobs.job import Job
from balancer.jobs.sqlite_store import SqliteJobStore
async def main():
    store = SqliteJobStore(pathlib.Path({str(tmp_path)!r}))
    fields = dict(caller="c", body={{}}, characters=1, created=0.0, format="wav")
    await store.add([Job(id=f"job-{{number}}", **fields) for number in range(50)])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    store = SqliteJobStore(tmp_path)
    assert (await store.counts())[JobState.QUEUED] == 50
    await store.aclose()


async def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteJobStore(tmp_path / "file")
    with pytest.raises(JobStoreError, match="cannot be used"):
        await store.add([job(1)])


async def test_an_outage_of_redis_loses_no_job(tmp_path: Path) -> None:
    with start_redis() as server:
        client = RedisClient(server.url)
        store = RedisJobStore(client, tmp_path, lease=LEASE)
        await store.add([job(1), job(2)])
        claimed = found(await store.claim())
        server.kill()
        with pytest.raises(JobStoreError, match="Redis is unavailable"):
            await store.add([job(3)])
        server.start()
        while client.unavailable_reason is not None:
            await asyncio.sleep(0.05)
        assert await store.finish(claimed, RESULT)
        assert found(await store.claim()).id == "job-2"
        await store.aclose()
        await client.aclose()
