"""What was accepted is spoken, once, though everything is killed again and again."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from scripts.support.stub_worker import audio_of
from tests.support.harness import Stub, start_balancer, start_stub, wait_until
from tests.support.webhook_receiver import start_webhook_receiver

JOBS = 200
KILLS = 6
AUDIO_BYTES = 4800
SPEAKING_SECONDS = 0.02
"""It takes both workers longer to speak all jobs than any server lives."""
WAV_HEADER_BYTES = 44
THINGS = ("ferry", "garden", "violin", "library", "mountain", "river", "kitchen", "window", "market", "teacher")
PLACES = ("harbour", "village", "station", "museum", "bakery", "orchard", "bridge", "valley", "castle", "island")
SECRET = "whsec_" + "A" * 32


def text(number: int) -> str:
    thing, place = THINGS[number % 10], PLACES[number // 10 % 10]
    return f"The {thing} near the old {place} was {'green' if number < 100 else 'yellow'}."


@contextmanager
def serving(run_dir: Path, settings: dict[str, Any]) -> Iterator[tuple[str, list[Stub]]]:
    """A balancer and two workers whose audio tells text and seed. The end of the block kills all that still run."""
    stub: dict[str, Any] = {"audio_bytes": AUDIO_BYTES, "speaking_seconds": SPEAKING_SECONDS, "audio_of_text": True}
    with (
        start_stub(run_dir, 0, **stub) as one,
        start_stub(run_dir, 1, **stub) as other,
        start_balancer(run_dir, ready=2, **settings) as url,
    ):
        yield url, [one, other]


def test_two_hundred_jobs_are_each_done_once(tmp_path: Path, run_dir: Path) -> None:
    rng = random.Random(4)
    settings: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "cache_mib": 0,
        "webhook_secret": SECRET,
        "webhook_private": True,
    }
    with start_webhook_receiver() as receiver:
        lines = [
            json.dumps(
                {"text": text(number), "seed": number, "idempotencyKey": f"job-{number}", "webhook": receiver.url}
            )
            for number in range(JOBS)
        ]
        ids: list[str] = []
        for _ in range(KILLS):
            with serving(run_dir, settings) as (url, workers):
                # A client that was not answered asks again: the same keys are the same jobs.
                for start in range(0, JOBS, 50):
                    answer = httpx.post(
                        f"{url}/queue/batch",
                        content="\n".join(lines[start : start + 50]),
                        headers={"Content-Type": "application/x-ndjson"},
                    )
                    assert answer.status_code == 202, answer.text
                    ids += [job["requestId"] for job in answer.json()["jobs"]]
                until = time.monotonic() + rng.uniform(0.1, 1.5)
                while time.monotonic() < until:
                    if rng.random() < 0.3:
                        rng.choice(workers).process.kill()
                        break
                    time.sleep(0.05)
        assert len(set(ids)) == JOBS
        ids = ids[:JOBS]
        with serving(run_dir, settings) as (url, _):
            for number, job_id in enumerate(ids):
                status_url = f"{url}/status/{job_id}"
                wait_until(lambda: httpx.get(status_url).json()["state"] in ("done", "failed"), timeout=120)  # noqa: B023
                status = httpx.get(status_url).json()
                assert status["state"] == "done", status
                answer = httpx.get(f"{url}/audio/{job_id}")
                assert answer.headers["etag"].strip('"') == hashlib.sha256(answer.content).hexdigest()
                assert answer.content[WAV_HEADER_BYTES:] == audio_of(text(number), number, AUDIO_BYTES)
            # Each job's webhook has been told, under one id of its own, of one and the same result.
            wait_until(lambda: len({headers["webhook-id"] for headers, _ in receiver.received}) == JOBS, timeout=120)
            finished: dict[str, set[str]] = {}
            for _, body in receiver.received:
                data = json.loads(body)["data"]
                finished.setdefault(data["requestId"], set()).add(data["finishedAt"])
            assert all(len(ends) == 1 for ends in finished.values())
    results = [file for file in (tmp_path / "data/jobs/results").iterdir() if not file.name.startswith(".")]
    assert len(results) == JOBS
