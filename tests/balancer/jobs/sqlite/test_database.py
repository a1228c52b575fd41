"""The database of jobs comes back by itself when its file is removed, replaced, damaged, or of an earlier version."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from balancer.jobs.job import JobState
from balancer.jobs.sqlite.database import DATABASE
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import JobStoreError
from tests.support.jobs import RESULT, found, job


def stored(folder: Path) -> dict[str, str]:
    """The states of the jobs in the file, by their ids."""
    database = sqlite3.connect(folder / DATABASE)
    try:
        return dict(database.execute("SELECT id, state FROM jobs"))
    finally:
        database.close()


async def test_jobs_of_a_removed_folder_are_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    store = SqliteJobStore(folder)
    await store.add([job(1), job(2)])
    running = found(await store.claims.claim_next())
    shutil.rmtree(folder)
    await store.add([job(3)])
    assert stored(folder) == {"job-1": "running", "job-2": "queued", "job-3": "queued"}
    assert await store.claims.finish(running, RESULT)
    assert found(await store.claims.claim_next()).id == "job-2"
    file = await store.audio(found(await store.get("job-1")))
    assert file is not None
    assert file.read_bytes() == bytes(RESULT.audio)
    await store.aclose()


async def test_queued_jobs_are_written_to_a_file_that_replaces_theirs(tmp_path: Path) -> None:
    store, other = SqliteJobStore(tmp_path / "jobs"), SqliteJobStore(tmp_path / "other")
    await store.add([job(1)])
    await other.add([job(2)])
    await other.aclose()
    shutil.rmtree(tmp_path / "jobs")
    (tmp_path / "other").rename(tmp_path / "jobs")
    assert (await store.counts())[JobState.QUEUED] == 2
    assert set(stored(tmp_path / "jobs")) == {"job-1", "job-2"}
    await store.aclose()


async def test_a_folder_that_cannot_be_made_again_refuses_jobs_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs"
    store = SqliteJobStore(folder)
    await store.add([job(1)])
    shutil.rmtree(folder.parent)
    folder.parent.write_text("in the way")
    with pytest.raises(JobStoreError):
        await store.add([job(2)])
    folder.parent.unlink()
    await store.add([job(2)])
    assert set(stored(folder)) == {"job-1", "job-2"}
    await store.aclose()


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    await store.aclose()
    with (tmp_path / DATABASE).open("r+b") as file:
        file.write(os.urandom(8192))
    store = SqliteJobStore(tmp_path)
    with pytest.raises(JobStoreError):
        await store.add([job(2)])
    await store.add([job(2)])
    assert stored(tmp_path) == {"job-2": "queued"}
    assert len(list(tmp_path.glob(f"{DATABASE}.damaged-*"))) == 1
    await store.aclose()


async def test_a_running_job_outlives_the_damage_of_its_database(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1)])
    running = found(await store.claims.claim_next())
    await store.add([job(2)])
    for file in tmp_path.glob(f"{DATABASE}*"):
        file.unlink()
    (tmp_path / DATABASE).write_bytes(os.urandom(8192))
    with pytest.raises(JobStoreError):
        await store.counts()
    assert await store.claims.finish(running, RESULT)
    assert found(await store.get("job-1")).state is JobState.DONE
    assert found(await store.claims.claim_next()).id == "job-2"
    await store.aclose()


_EARLIER_SCHEMA = """
CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
    due REAL NOT NULL, characters INTEGER NOT NULL, attempts INTEGER NOT NULL, caller TEXT NOT NULL,
    idempotency_key TEXT, finished REAL, webhook_due REAL, content TEXT NOT NULL);
CREATE INDEX by_state ON jobs (state, number);
"""


_VERSION_1 = """
DROP TABLE segments;
DROP TRIGGER drop_segments_of_ended;
DROP TRIGGER drop_segments_of_deleted;
DROP TRIGGER count_added;
DROP TRIGGER count_deleted;
DROP TRIGGER count_changed;
CREATE TRIGGER count_changed AFTER UPDATE ON jobs WHEN OLD.size <> NEW.size BEGIN
    UPDATE totals SET value = value + NEW.size - OLD.size WHERE name = 'size';
END;
ALTER TABLE jobs DROP COLUMN expected_size;
ALTER TABLE jobs DROP COLUMN kept_size;
PRAGMA user_version = 1;
"""


async def test_jobs_of_version_1_keep_their_turns(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    await store.add([job(1), job(2, caller="other"), job(3)])
    assert found(await store.claims.claim_next()).id == "job-1"
    await store.aclose()
    database = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    turns = database.execute("SELECT id, turn FROM jobs").fetchall()
    database.executescript(_VERSION_1)
    store = SqliteJobStore(tmp_path)
    await store.add([job(4, expected_size=7)])
    assert database.execute("SELECT id, turn FROM jobs WHERE expected_size = 0").fetchall() == turns
    begun = await store.segments.begin(found(await store.claims.claim_next()), "digest", 2)
    assert begun is not None
    assert await store.segments.keep(begun[0], 0, RESULT.audio)
    assert await store.retention.audio_bytes() == len(RESULT.audio)
    database.close()
    await store.aclose()


async def test_jobs_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / DATABASE)
    database.executescript(_EARLIER_SCHEMA)
    done = job(9, caller="shop", owner="shop", state=JobState.DONE, finished=1000.0, seconds=1.0, digest="d")
    for one in [*(job(number, caller="many") for number in range(3)), job(5, caller="few"), done]:
        earlier = {name: value for name, value in one.model_dump().items() if name not in ("size", "concurrency")}
        values = (one.id, one.state.value, one.due, 10, 0, one.caller, one.finished, json.dumps(earlier))
        database.execute(
            "INSERT INTO jobs (id, state, due, characters, attempts, caller, finished, content) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    database.commit()
    database.close()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "job-9.wav").write_bytes(b"audio")
    store = SqliteJobStore(tmp_path)
    assert [found(await store.claims.claim_next()).id for _ in range(4)] == ["job-0", "job-5", "job-1", "job-2"]
    assert await store.retention.audio_bytes() == len(b"audio")
    assert (await store.counts())[JobState.DONE] == 1
    await store.aclose()
