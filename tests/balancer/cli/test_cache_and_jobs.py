"""`chorus cache` and `chorus jobs` on stores with entries, as a server leaves them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from balancer.audio.buffers import MemoryBuffer
from balancer.cache.store import CachedAudio
from balancer.cli.main import app
from balancer.jobs.job import Job, JobError, JobState
from balancer.settings.settings import Settings
from balancer.stores import open_stores
from tests.support.redis_server import start_redis


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHORUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CHORUS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


async def fill() -> None:
    stores = open_stores(Settings.load().storage)
    assert stores.audio is not None
    for number in range(3):
        await stores.audio.put(f"{number:064}", CachedAudio(MemoryBuffer(bytes(1000)), 1.0, time.time()))
    jobs = [
        Job(
            id=f"job-{number}", caller="shop", body={"text": f"Text {number}."}, characters=7, created=0.0, format="wav"
        )
        for number in range(2)
    ]
    await stores.jobs.add(jobs)
    claimed = await stores.jobs.claims.claim_next()
    assert claimed is not None
    await stores.jobs.claims.fail(claimed, JobError(code="synthesis_failed", message="it did not want to"))
    await stores.aclose()


def check(where: str) -> None:
    asyncio.run(fill())
    stats = json.loads(run("cache", "stats", "--json").stdout)
    assert (stats["entries"], stats["limit"]) == (3, 1024 * 2**20)
    assert where in stats["where"]
    assert "3 entries" in run("cache", "stats").stdout
    assert "deleted 3 entries" in run("cache", "clear").stderr
    assert json.loads(run("cache", "stats", "--json").stdout)["entries"] == 0

    counts = dict(line.split() for line in run("jobs", "stats").stdout.splitlines())
    assert counts == {state.value: "0" for state in JobState} | {"queued": "1", "failed": "1"}
    listed = " ".join(run("jobs", "failed").stdout.split())
    assert "job-0" in listed
    assert "it did" in listed
    assert run("jobs", "retry", "job-0").exit_code == 0
    again = run("jobs", "retry", "job-0")
    assert (again.exit_code, "no failed job job-0" in again.stderr) == (1, True)


def test_on_files(folders: Path) -> None:
    check(str(folders))


def test_on_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    with start_redis() as server:
        monkeypatch.setenv("CHORUS_REDIS_URL", server.url)
        check(f"127.0.0.1:{server.port}")
        server.stop()
        for command in (("cache", "stats"), ("cache", "clear"), ("jobs", "stats"), ("jobs", "retry", "x")):
            failed = run(*command)
            assert (failed.exit_code, "Redis is unavailable" in failed.stderr) == (1, True)


def test_a_disabled_cache_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_CACHE_MIB", "0")
    assert "CHORUS_CACHE_MIB is 0" in run("cache", "stats").stderr
