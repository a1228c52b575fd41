"""Processes that share the folder of a job store, and a folder that cannot be written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from balancer.jobs.job import JobState
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import JobStoreError
from tests.support.harness import ROOT, environment
from tests.support.jobs import found, job


async def test_two_processes_of_one_folder_do_not_both_run_jobs(tmp_path: Path) -> None:
    one, other = SqliteJobStore(tmp_path), SqliteJobStore(tmp_path)
    await one.add([job(1), job(2)])
    assert (await one.claims.claim_next()) is not None
    assert await other.claims.claim_next() is None
    assert found(await other.get("job-1")).state is JobState.RUNNING
    await one.aclose()
    assert found(await other.claims.claim_next()).id == "job-1"
    await other.aclose()


async def test_added_jobs_survive_the_death_of_the_process(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, pathlib, signal
from balancer.jobs.job import Job
from balancer.jobs.sqlite.store import SqliteJobStore
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
