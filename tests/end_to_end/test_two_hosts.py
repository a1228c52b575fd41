"""Two servers, as on two hosts, that share one Redis."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from scripts.support.redis_server import RedisServer
from tests.end_to_end.conftest import Chorus, kill_all, start_chorus
from tests.support.harness import ROOT, TIMEOUT, wait_until

LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of voices that the hosts share."""
    folder = tmp_path_factory.mktemp("shared") / "voices"
    shutil.copytree(ROOT / "voices" / "default", folder / "default")
    return folder


@pytest.fixture(scope="module")
def hosts(redis: RedisServer, voices: Path) -> Iterator[list[Chorus]]:
    with ExitStack() as running:
        yield [
            running.enter_context(
                start_chorus(
                    "--workers",
                    "1",
                    "--host",
                    address,
                    host_name=address,
                    redis_url=redis.url,
                    voices_dir=voices,
                    cache_mib=64,
                    rate_requests_per_minute=200,
                )
            )
            for address in ("127.0.0.2", "127.0.0.3")
        ]


def test_audio_kept_by_one_serves_the_other(hosts: list[Chorus]) -> None:
    body = {"text": "Kept by one, spoken by the other.", "seed": 5}
    first = httpx.post(f"{hosts[0].url}/tts", json=body)
    assert first.headers["x-cache"] == "miss"
    wait_until(lambda: httpx.post(f"{hosts[1].url}/tts", json=body).headers["x-cache"] == "hit")
    assert httpx.post(f"{hosts[1].url}/tts", json=body).content == first.content


def test_a_voice_in_the_shared_folder_is_spoken_by_both_until_it_is_removed(hosts: list[Chorus], voices: Path) -> None:
    def speak(host: Chorus) -> httpx.Response:
        return httpx.post(f"{host.url}/tts", json={"text": "It is spoken here, too.", "character": "narrator"})

    def listed(host: Chorus) -> set[str]:
        return {voice["name"] for voice in httpx.get(f"{host.url}/v1/audio/voices").json()["data"]}

    assert [speak(host).json()["error"]["code"] for host in hosts] == ["voice_not_found"] * 2
    (voices / "narrator").mkdir()
    (voices / "narrator" / "voice.toml").write_text('name = "narrator"\nengine = "*"\n')
    for host in hosts:
        wait_until(lambda: "narrator" in listed(host))  # noqa: B023
        assert speak(host).status_code == 200
    shutil.rmtree(voices / "narrator")
    for host in hosts:
        wait_until(lambda: "narrator" not in listed(host))  # noqa: B023
        assert speak(host).json()["error"]["code"] == "voice_not_found"


def test_jobs_are_done_by_both_and_known_to_either(hosts: list[Chorus]) -> None:
    before = [jobs_done(host) for host in hosts]
    lines = "\n".join(json.dumps({"text": f"Job number {number} of a longer batch."}) for number in range(60))
    answer = httpx.post(f"{hosts[0].url}/queue/batch", content=lines, headers=LINES)
    assert answer.status_code == 202
    ids = [job["requestId"] for job in answer.json()["jobs"]]
    for number, job_id in enumerate(ids):
        host = hosts[number % 2]
        wait_until(lambda: httpx.get(f"{host.url}/status/{job_id}").json()["ready"])  # noqa: B023
        assert httpx.get(f"{host.url}/audio/{job_id}").content[:4] == b"RIFF"
    # A job is known to be done a moment before its host counts it.
    wait_until(lambda: sum(map(jobs_done, hosts)) == sum(before) + 60)
    done = [jobs_done(host) - count for host, count in zip(hosts, before, strict=True)]
    assert sum(done) == 60
    assert min(done) >= 5, done


def jobs_done(host: Chorus) -> float:
    """The jobs that this host has done. On a busy machine, some are postponed before."""
    return host.metric("chorus_jobs_total", outcome="done")


def test_a_dead_host_s_jobs_are_done_by_the_other(hosts: list[Chorus], redis: RedisServer) -> None:
    with start_chorus(
        "--workers", "1", "--host", "127.0.0.4", host_name="127.0.0.4", redis_url=redis.url, cache_mib=64
    ) as third:
        lines = "\n".join(json.dumps({"text": f"Text {number}. " * 15}) for number in range(30))
        ids = [
            job["requestId"]
            for job in httpx.post(f"{third.url}/queue/batch", content=lines, headers=LINES).json()["jobs"]
        ]
        wait_until(lambda: third.metric("chorus_jobs_total") >= 1)
        kill_all(third)
    for job_id in ids:
        wait_until(lambda: httpx.get(f"{hosts[0].url}/status/{job_id}").json()["ready"], timeout=90)  # noqa: B023


def test_a_rate_limit_counts_both(hosts: list[Chorus]) -> None:
    def ask(number: int) -> int:
        body = {"text": "Limited.", "seed": 1}
        return httpx.post(f"{hosts[number % 2].url}/tts-json", json=body, timeout=TIMEOUT).status_code

    # All within the minute that is limited, also on a slow machine.
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(220)))
    assert 429 in statuses
    assert statuses.count(200) <= 200
    assert set(statuses) == {200, 429}
