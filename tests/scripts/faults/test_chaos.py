"""Chorus under fire, for a shorter while than by hand; and that its judge would notice what went wrong."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from scripts.faults.clients import Clients, speak
from scripts.faults.disk import small_disk
from scripts.faults.texts import Line, digest, lines
from tests.support.harness import ROOT, environment, start_balancer, start_stub

SECONDS = 30
TIMEOUT = 300


def test_nothing_is_lost_under_fire(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = (f"--duration={SECONDS}", "--least=0", "--texts=20", "--workers=2", f"--json={file}")
    command = [str(ROOT / "scripts/chaos"), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert result["lost"] == {}
    assert result["answered"] >= 50
    assert result["hung_up"] >= 1
    assert result["answered"] + result["hung_up"] == result["requests"]
    assert result["troubles"]["workers killed (SIGKILL)"] >= 3
    assert result["troubles"]["workers stopped (SIGSTOP)"] >= 1
    disk = "times the run directory's disk was full"
    assert (result["left_out"] is None) == (result["troubles"].get(disk, 0) >= 1)
    assert [finding["what"] for finding in result["findings"] if not finding["right"]] == []
    assert result["metrics"]["chorus_workers_lost_total"] >= 4
    assert result["metrics"]["chorus_retries_total"] >= 1
    assert result["heard"] >= 5
    assert result["misheard"] < 0.2


def test_a_small_disk_fills_and_is_gone_afterwards() -> None:
    with tempfile.TemporaryDirectory(prefix="chorus-") as name:
        folder = Path(name) / "run"
        with small_disk(folder) as left_out:
            assert (left_out is None) == folder.is_mount()
            if left_out is None:
                with pytest.raises(OSError, match="No space left"):
                    (folder / "file").write_bytes(bytes(2**23))
            else:
                assert os.geteuid() != 0 or "no disk can be mounted" in left_out
        assert not folder.is_mount()


def test_lines_are_settled_by_the_seed() -> None:
    assert lines(10, 1) == lines(10, 1) != lines(10, 2)
    assert len({line.text for line in lines(50, 1)}) == 50


@pytest.fixture
def url(run_dir: Path) -> Iterator[str]:
    """A balancer before one stub worker, which does as its texts say."""
    with ExitStack() as running:
        running.enter_context(start_stub(run_dir, audio_bytes=1000))
        yield running.enter_context(start_balancer(run_dir))


async def seen(url: str, line: Line, *, requests: int = 3, hang_ups: float = 0.0) -> Clients:
    clients = Clients(url, [line], requests=requests, hang_ups=hang_ups, seed=1)
    await clients.run(2)
    return clients


async def test_right_answers_are_counted_and_kept(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        right = digest((await speak(http, Line("Hello.", "short", 1))).content)
    result = (await seen(url, Line("Hello.", "short", 1, right))).seen
    assert (result.right, result.requests, len(result.latencies), len(result.kept)) == (3, 3, 3, 3)
    assert not result.lost


async def test_wrong_audio_is_noticed(url: str) -> None:
    result = (await seen(url, Line("Hello.", "short", 1, digest(b"something else")))).seen
    assert result.lost == Counter({"200 with the wrong audio": 3})
    assert result.right == 0


async def test_a_refusal_is_noticed(url: str) -> None:
    result = (await seen(url, Line("fail", "short", 1))).seen
    assert sum(result.lost.values()) == 3
    assert all(what.startswith("500 ") for what in result.lost)


async def test_a_server_that_is_gone_is_noticed() -> None:
    result = (await seen("http://127.0.0.1:9", Line("Hello.", "short", 1))).seen
    assert result.lost == Counter({"ConnectError": 3})


async def test_clients_that_hang_up_are_not_losses(url: str) -> None:
    result = (await seen(url, Line("hang", "short", 1), hang_ups=1.0)).seen
    assert (result.hung_up, result.requests) == (3, 3)
    assert not result.lost
