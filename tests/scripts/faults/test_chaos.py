"""The fault test, shorter than its default, and that its clients notice failures."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scripts.faults.attackers import CONNECTIONS, FLOODED, Attackers
from scripts.faults.clients import ClientResults, Clients, synthesize
from scripts.faults.disk import small_disk
from scripts.faults.texts import ReferenceUtterance, audio_digest, draw_utterances
from tests.support.harness import ROOT, environment, start_balancer, start_stub

SECONDS = 8
PAUSE = "1-2"
"""Seconds between two faults."""
MAX_SECONDS = 400
"""A slow machine needs longer for the requests and faults that the test counts."""
TIMEOUT = 600


def test_no_request_fails_under_faults(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = (
        *(f"--duration={SECONDS}", f"--max-duration={MAX_SECONDS}", "--min-requests=70", "--min-faults=4"),
        # Of this seed, most texts are short, and the recogniser understands them. It takes longer than the voice.
        *(f"--pause={PAUSE}", "--texts=5", "--seed=40", "--workers=2", f"--json={file}"),
    )
    command = [str(ROOT / "scripts/chaos"), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert result["passed"]
    assert result["failures"] == {}
    assert result["correct"] >= 50
    assert result["hung_up"] >= 1
    assert result["correct"] + result["hung_up"] == result["requests"]
    assert result["faults"]["workers killed (SIGKILL)"] >= 3
    assert result["faults"]["workers stopped (SIGSTOP)"] >= 1
    full_disks = result["faults"].get("times the disk of the run directory was full", 0)
    assert (result["disk_not_filled"] is None) == (full_disks >= 1)
    assert [check["name"] for check in result["invariants"] if not check["holds"]] == []
    # A worker that has not become ready since the last fault does not count as lost.
    assert result["metrics"]["chorus_workers_lost_total"] >= result["ready_workers_hit"] >= 1
    assert result["metrics"]["chorus_retries_total"] >= 1
    assert result["recognised"] >= 5
    assert result["word_error_rate"] < 0.2


def test_a_small_disk_fills_and_is_gone_afterwards() -> None:
    with tempfile.TemporaryDirectory(prefix="chorus-") as name:
        folder = Path(name) / "run"
        with small_disk(folder) as reason:
            assert (reason is None) == folder.is_mount()
            if reason is None:
                with pytest.raises(OSError, match="No space left"):
                    (folder / "file").write_bytes(bytes(2**23))
            else:
                assert os.geteuid() != 0 or "no disk can be mounted" in reason
        assert not folder.is_mount()


def test_utterances_depend_on_the_seed_alone() -> None:
    assert draw_utterances(10, 1) == draw_utterances(10, 1) != draw_utterances(10, 2)
    assert len({utterance.text for utterance in draw_utterances(50, 1)}) == 50


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a balancer with one stub worker."""
    with (
        tempfile.TemporaryDirectory(prefix="chorus-") as folder,
        start_stub(Path(folder), audio_bytes=1000),
        start_balancer(Path(folder)) as url,
    ):
        yield url


async def results(
    url: str, text: str = "Hello.", digest: str = "", *, requests: int = 3, hang_ups: float = 0.0
) -> ClientResults:
    """The results of two clients that ask for one text."""
    utterance = ReferenceUtterance(text, "short", 1, digest)
    clients = Clients(url, [utterance], requests=requests, hang_ups=hang_ups, seed=1)
    await clients.run(2)
    return clients.results


async def test_correct_answers_are_counted_and_kept(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        digest = audio_digest((await synthesize(http, ReferenceUtterance("Hello.", "short", 1))).content)
    found = await results(url, "Hello.", digest)
    assert (found.correct, found.requests, len(found.latencies), len(found.samples)) == (3, 3, 3, 3)
    assert not found.failures


async def test_wrong_audio_is_a_failure(url: str) -> None:
    found = await results(url, "Hello.", audio_digest(b"something else"))
    assert found.failures == Counter({"200 with the wrong audio": 3})
    assert found.correct == 0


async def test_an_error_is_a_failure(url: str) -> None:
    found = await results(url, "fail")
    assert sum(found.failures.values()) == 3
    assert all(kind.startswith("500 ") for kind in found.failures)


async def test_a_server_that_is_gone_is_a_failure() -> None:
    found = await results("http://127.0.0.1:9")
    assert found.failures == Counter({"ConnectError": 3})


async def test_outstanding_requests_are_awaited_and_later_ones_are_not(url: str) -> None:
    utterances = [ReferenceUtterance("hang", "short", 1)]
    clients = Clients(url, utterances, requests=3, hang_ups=1.0, seed=1)
    await clients.wait_for_outstanding()
    running = asyncio.create_task(clients.run(1))
    await clients.wait_for_requests(1)
    await clients.wait_for_outstanding()
    assert clients.results.requests == 2
    await running


async def test_a_client_that_hangs_up_is_no_failure(url: str) -> None:
    found = await results(url, "hang", hang_ups=1.0)
    assert (found.hung_up, found.requests) == (3, 3)
    assert not found.failures


async def test_hostile_clients_change_no_answer(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        digest = audio_digest((await synthesize(http, ReferenceUtterance("Hello.", "short", 1))).content)
    attackers = Attackers(int(url.rpartition(":")[2]))
    attacking = asyncio.create_task(attackers.run())
    found = await results(url, "Hello.", digest, requests=20)
    while not attackers.attacks[FLOODED]:
        await asyncio.sleep(0.01)
    attacking.cancel()
    await asyncio.wait([attacking])
    assert attackers.attacks.keys() == {*CONNECTIONS, FLOODED}
    assert (found.correct, found.requests) == (20, 20)
