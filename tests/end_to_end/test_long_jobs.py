"""A long text is spoken as one job: every process is killed twice on the way, and each segment is spoken once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from balancer.text.segments import split
from scripts.support.recogniser import word_error_rate
from tests.end_to_end.conftest import ONE_WORKER, Chorus, kill_all, start_chorus, synthesize
from tests.support.harness import TIMEOUT, wait_until
from tests.support.redis_server import start_redis
from tests.support.webhook_receiver import start_webhook_receiver
from worker.cards import CARDS

THINGS = ("ferry", "garden", "violin", "library", "mountain", "river", "kitchen", "window", "market", "teacher")
PLACES = ("harbour", "village", "station", "museum")
TEXT = " ".join(
    f"The {thing} near the old {place} was painted {colour}."
    for place, colour in zip(PLACES, ("green", "yellow", "white", "brown"), strict=True)
    for thing in THINGS
)
LONGER = f"{TEXT} " * 10
"""Of a job that does not end by itself within a test."""
SEGMENTS = [segment.text for segment in split(TEXT, "en", CARDS["hibari"].segments)]
WAV_HEADER_BYTES = 44
KILLS = (4, 8)
"""Kept segments at which everything is killed. On a busy machine more are kept before a test sees it."""
SECRET = "whsec_" + "A" * 32
SETTINGS: dict[str, Any] = {
    "log_format": "json",
    "log_text": "true",
    "max_text_characters": 2000,
    "webhook_secret": SECRET,
    "webhook_private": True,
}
OPTIONS = ("--workers", "2", "--threads", "1")


def queue(chorus: Chorus, **fields: object) -> str:
    body = {"text": TEXT, "seed": 5, "normalize": False} | fields
    answer = httpx.post(f"{chorus.url}/queue", json=body, timeout=TIMEOUT)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["requestId"])


def status(chorus: Chorus, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{chorus.url}/status/{job_id}", timeout=TIMEOUT).raise_for_status().json()
    return found


def await_segments(chorus: Chorus, job_id: str, count: int) -> None:
    """Return at the event by which so many segments are finished."""
    events = {"Accept": "text/event-stream"}
    with httpx.stream("GET", f"{chorus.url}/status/{job_id}", headers=events, timeout=TIMEOUT) as answer:
        for line in answer.raise_for_status().iter_lines():
            if line.startswith("data:") and json.loads(line.removeprefix("data:"))["segmentsDone"] >= count:
                return
    raise AssertionError(f"the events ended before {count} segments were finished")


def await_done(chorus: Chorus, job_id: str) -> bytes:
    wait_until(lambda: status(chorus, job_id)["state"] in ("done", "failed"), timeout=180)
    assert status(chorus, job_id)["state"] == "done", status(chorus, job_id)
    return httpx.get(f"{chorus.url}/audio/{job_id}", timeout=TIMEOUT).raise_for_status().content


def listen(chorus: Chorus, job_id: str) -> bytes:
    """The audio of a job that is being made, to its end."""
    with httpx.stream("GET", f"{chorus.url}/audio/{job_id}?stream=true", timeout=180) as response:
        assert response.raise_for_status().headers["transfer-encoding"] == "chunked"
        return b"".join(response.iter_raw())


def spoken(log: str) -> Counter[str]:
    """How often each text was spoken to its end, by the workers' log lines."""
    texts: Counter[str] = Counter()
    # Without the last line, which may be half written.
    for line in log.split("\n")[:-1]:
        if '"utterance ok"' in line:
            texts[json.loads(line)["text"]] += 1
    return texts


@dataclass(frozen=True)
class Host:
    """A server and its data folder."""

    chorus: Chorus
    data: Path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A server that nothing happens to, shared by the tests of this module."""
    data = tmp_path_factory.mktemp("data")
    with start_chorus(*OPTIONS, data_dir=data, jobs_mib=400, **SETTINGS) as chorus:
        yield Host(chorus, data)


@pytest.fixture(scope="module")
def undisturbed(host: Host) -> bytes:
    """The audio of TEXT, of a job that nothing happened to."""
    return await_done(host.chorus, queue(host.chorus))


def test_a_long_job_survives_two_crashes_of_everything(tmp_path: Path, undisturbed: bytes) -> None:
    assert len(SEGMENTS) == len(set(SEGMENTS)) == 40
    data = tmp_path / "data"
    job_id = "none"

    def kept() -> set[str]:
        return {SEGMENTS[int(file.stem)] for file in (data / "jobs" / "segments").glob(f"{job_id}/*/[0-9]*.pcm")}

    def kept_at_least(count: int) -> bool:
        return len(kept()) >= count

    with start_webhook_receiver() as receiver:
        for kill in KILLS:
            before = kept()
            with start_chorus(*ONE_WORKER, data_dir=data, **SETTINGS) as chorus:
                job_id = queue(chorus, webhook=receiver.url) if job_id == "none" else job_id
                # Seen in the folder: when an event of the status tells of them, a fast host may have finished the job.
                wait_until(partial(kept_at_least, kill))
                kill_all(chorus)
                texts = spoken(chorus.log.read_text())
            assert set(texts.values()) == {1}
            assert texts.keys().isdisjoint(before), "a segment that is kept is not spoken again"
            assert kill <= len(kept()) < len(SEGMENTS)
        before = kept()
        # Asked before the balancer accepts connections: it answers at once, while the other segments are to be spoken.
        with start_chorus(*OPTIONS, data_dir=data, begin="spawned: 'balancer'", **SETTINGS) as chorus:
            # One that takes long to start on a busy machine is spoken for: 503.
            wait_until(lambda: httpx.get(f"{chorus.url}/status/{job_id}", timeout=TIMEOUT).is_success)
            resumed = status(chorus, job_id)
            assert resumed["state"] in ("queued", "running")
            assert (resumed["segments"], resumed["segmentsDone"] >= len(before)) == (len(SEGMENTS), True)
            assert len(before) / len(SEGMENTS) - 0.05 < resumed["progress"] < 1
            audio = await_done(chorus, job_id)
            done = status(chorus, job_id)
            assert (done["segments"], done["segmentsDone"], done["progress"]) == (40, 40, 1)
            # A worker's line comes to the log a moment after its audio.
            wait_until(lambda: spoken(chorus.log.read_text()).keys() == set(SEGMENTS) - before)
            assert spoken(chorus.log.read_text()) == Counter(set(SEGMENTS) - before)
            # The balancer learns of a worker's count with its next probe.
            wait_until(lambda: chorus.metric("chorus_worker_utterances_total") == len(SEGMENTS) - len(before))
            wait_until(lambda: len(receiver.received) == 1)
            wait_until(lambda: not (data / "jobs" / "segments" / job_id).exists())
        assert len(receiver.received) == 1
    assert hashlib.sha256(audio).hexdigest() == hashlib.sha256(undisturbed).hexdigest()
    assert word_error_rate(TEXT, audio) < 0.2


def test_a_long_job_in_redis_goes_on_on_another_host(tmp_path: Path, undisturbed: bytes) -> None:
    with start_redis() as server, Redis.from_url(server.url) as redis:
        settings = SETTINGS | {"redis_url": server.url}
        with start_chorus(*ONE_WORKER, data_dir=tmp_path / "one", cache_dir=tmp_path / "cache", **settings) as chorus:
            job_id = queue(chorus)
            wait_until(lambda: redis.hlen(f"chorus:job-segments:{job_id}") >= KILLS[0])
            kill_all(chorus)
        before = redis.hlen(f"chorus:job-segments:{job_id}")
        assert KILLS[0] <= before < len(SEGMENTS)
        with start_chorus(*ONE_WORKER, data_dir=tmp_path / "two", cache_dir=tmp_path / "other", **settings) as chorus:
            assert listen(chorus, job_id)[WAV_HEADER_BYTES:] == undisturbed[WAV_HEADER_BYTES:]
            assert await_done(chorus, job_id) == undisturbed
            wait_until(lambda: chorus.metric("chorus_worker_utterances_total") == len(SEGMENTS) - before)


def test_a_long_job_leaves_turns_to_others_and_frees_every_slot_when_it_is_cancelled(
    host: Host, undisturbed: bytes
) -> None:
    chorus = host.chorus
    job_id, second = queue(chorus, text=LONGER), queue(chorus, text=LONGER, seed=6)
    await_segments(chorus, job_id, 3)
    short = await_done(chorus, queue(chorus, text="A short job."))
    assert synthesize(chorus, "A request.")
    assert status(chorus, job_id)["state"] == "running"
    assert httpx.delete(f"{chorus.url}/queue/{second}").json()["segments"] is None
    assert httpx.delete(f"{chorus.url}/queue/{job_id}").json()["state"] == "cancelled"
    wait_until(lambda: chorus.health()["freeSlots"] == 2 and chorus.health()["queueDepth"] == 0)
    wait_until(lambda: not list((host.data / "jobs" / "segments").iterdir()))
    wait_until(lambda: chorus.metric("chorus_jobs_audio_bytes") == len(undisturbed) + len(short))


def test_a_stopped_server_leaves_a_long_job_to_the_next(tmp_path: Path, undisturbed: bytes) -> None:
    with start_chorus(*ONE_WORKER, data_dir=tmp_path, **SETTINGS) as chorus:
        job_id = queue(chorus)
        await_segments(chorus, job_id, 3)
    with start_chorus(*ONE_WORKER, data_dir=tmp_path, **SETTINGS) as chorus:
        assert status(chorus, job_id)["segmentsDone"] >= 3
        assert listen(chorus, job_id)[WAV_HEADER_BYTES:] == undisturbed[WAV_HEADER_BYTES:]
        assert await_done(chorus, job_id) == undisturbed
        assert status(chorus, job_id)["attempts"] == 1


def test_texts_that_are_too_long_and_results_that_are_too_large_are_refused_at_once(host: Host) -> None:
    url = host.chorus.url
    answer = httpx.post(f"{url}/tts", json={"text": TEXT})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "text_too_long")
    for text, code in (("Too long. " * 20_001, "text_too_long"), ("Hello there. " * 15_000, "audio_too_large")):
        answer = httpx.post(f"{url}/queue", json={"text": text}, timeout=TIMEOUT)
        assert answer.json()["error"]["code"] == code, answer.text
        assert "parts" in answer.text or code == "text_too_long"
