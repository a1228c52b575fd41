"""Attacks by what the job store keeps: audio that fills the disk, rows that cannot be read, a folder that is gone."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from scripts.attacks.attack import Attack, Checks, Criteria, all_spoken
from scripts.attacks.jobs import job_done
from scripts.attacks.readers import LARGE, LARGE_SECONDS
from scripts.attacks.target import ChorusPlan, Target
from scripts.attacks.texts import long_text, new_text
from scripts.attacks.wire import ATTACKER
from scripts.support.check import Check
from scripts.support.markdown import mib

RESULTS_MIB = 160
SHARE = 0.5
"""The part of it that one caller may take."""
DATABASE_MIB = 4
ABORT_BYTES = 600 * 2**20
FILL_SECONDS = 25.0
OTHER_SECONDS = 20.0


async def results_size(target: Target) -> Checks:
    """Jobs of a few kilobytes whose audio is 60 MB each."""
    # Synthesized once: only the speed differs.
    await target.ask("POST", "/tts", LARGE, source=ATTACKER, timeout=LARGE_SECONDS)
    bodies = [LARGE | {"speed": 0.25 + number / 10_000} for number in range(1, 15)]
    queued = await target.queue(*bodies, source=ATTACKER)
    largest, until = 0, time.monotonic() + FILL_SECONDS
    while time.monotonic() < until and largest < ABORT_BYTES:
        largest = max(largest, _size(target.data_dir / "jobs"))
        await asyncio.sleep(0.25)
    other = await target.ask("POST", "/queue", {"text": new_text()})
    limit = round((RESULTS_MIB * SHARE + DATABASE_MIB) * 2**20)
    checks = [
        Check("the batch", str(queued.status), holds=True),
        Check("disk of the jobs", f"{mib(largest)} (at most {mib(limit)})", largest <= limit),
        Check("another caller's job", str(other.status), other.status == 202),
    ]
    if other.status == 202:
        done = await job_done(target, other, OTHER_SECONDS)
        deleted = await target.ask("DELETE", f"/queue/{other.json()['requestId']}")
        checks += [
            Check("it is done", "yes" if done else f"not within {OTHER_SECONDS:g} s", done),
            Check("a job that is done can be deleted", str(deleted.status), deleted.status < 300),
        ]
    return checks


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # it may just have been deleted
            total += file.stat().st_size
    return total


async def unreadable_rows(target: Target) -> Checks:
    """Rows of jobs that this version cannot read: one of a later version, one that is torn."""
    await target.queue(*({"text": long_text(3000, number)} for number in range(4)), source=ATTACKER)
    queued = await target.queue({"text": new_text()}, {"text": new_text()}, source=ATTACKER)
    ids = [job["requestId"] for job in queued.json()["jobs"]]
    with sqlite3.connect(target.data_dir / "jobs/jobs.sqlite3", timeout=10) as database:
        for job_id, tear in zip(ids, (_of_later_version, _torn), strict=True):
            (content,) = database.execute("SELECT content FROM jobs WHERE id = ?", (job_id,)).fetchone()
            database.execute("UPDATE jobs SET content = ?, number = -number WHERE id = ?", (tear(content), job_id))
    database.close()
    statuses = []
    until = time.monotonic() + target.duration
    while time.monotonic() < until:
        statuses.append(await target.speech_status(new_text(), timeout=10.0))
        await asyncio.sleep(0.2)
    other = await target.ask("POST", "/queue", {"text": new_text()})
    done = other.status == 202 and await job_done(target, other, OTHER_SECONDS)
    return [
        all_spoken("speech", statuses),
        Check("another caller's job is done", "yes" if done else f"HTTP {other.status}, not done", done),
    ]


def _of_later_version(content: str) -> str:
    return json.dumps(json.loads(content) | {"state": "paused"})


def _torn(content: str) -> str:
    return content[: len(content) // 2]


async def folder_removed(target: Target) -> Checks:
    """The folder of jobs is removed while the server runs; what is accepted afterwards must be on the disk."""
    folder = target.data_dir / "jobs"
    first = await target.ask("POST", "/queue", {"text": new_text()})
    await job_done(target, first, OTHER_SECONDS)
    await asyncio.to_thread(shutil.rmtree, folder)
    await asyncio.sleep(1.0)
    spoken = await target.speech_status(new_text())
    later = await target.ask("POST", "/queue", {"text": new_text()})
    kept = False
    if later.status == 202 and (folder / "jobs.sqlite3").exists():
        with sqlite3.connect(f"file:{folder}/jobs.sqlite3?mode=ro", uri=True, timeout=5) as database:
            rows = database.execute("SELECT id FROM jobs WHERE id = ?", (later.json()["requestId"],)).fetchall()
        database.close()
        kept = bool(rows)
    refused = later.status == 503
    return [
        all_spoken("speech", [spoken]),
        Check("a job afterwards", f"{later.status}, {'kept' if kept else 'not on the disk'}", kept or refused),
    ]


ATTACKS = (
    Attack(
        "results-size",
        "14 jobs with 60 MB of audio each",
        results_size,
        ChorusPlan({"jobs_mib": RESULTS_MIB, "jobs_caller_share": SHARE}),
        Criteria(idle=False),
        max_seconds=220,
    ),
    Attack("unreadable-rows", "job rows of a later version, and torn", unreadable_rows, criteria=Criteria(idle=False)),
    Attack("jobs-folder-removed", "the folder of jobs is removed", folder_removed, max_seconds=90),
)
