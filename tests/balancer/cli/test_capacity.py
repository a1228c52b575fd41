"""`chorus capacity` against a real balancer with stub workers of a fixed time, whose knee is known."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import ROOT, start_balancer, start_stub

CHORUS = Path(sys.executable).with_name("chorus")
SPEAKING_SECONDS = 0.2
WORKERS = 2
TIMEOUT = 300
OPTIONS = ("--p95", "0.5s", "--step", "3s", "--price-per-hour", "0.5", "--requests-per-minute", "1000")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("capacity")
    (folder / "texts.txt").write_text("The ferry leaves the harbour at dawn.\nIt returns before the tide.\n")
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run_dir = tmp_path_factory.mktemp("r")
    with (
        start_stub(run_dir, 0, speaking_seconds=SPEAKING_SECONDS),
        start_stub(run_dir, 1, speaking_seconds=SPEAKING_SECONDS),
        start_balancer(run_dir, ready=WORKERS, cache_mib=50) as url,
    ):
        yield url


def capacity(folder: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
    arguments = ("--texts", "texts.txt", "-o", "report.html", "--url", url, *OPTIONS, *options)
    return subprocess.run(
        [CHORUS, "capacity", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.fixture(scope="module")
def interrupted(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """A run that has time for the first measurements only."""
    return capacity(folder, url, "--within", "5s")


@pytest.fixture(scope="module")
def complete(folder: Path, url: str, interrupted: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The run that goes on with it."""
    return capacity(folder, url, "--within", "3m", "--resume", "--json", "--plan", "--cpus", "64")


def test_a_run_is_bounded_in_time(interrupted: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert interrupted.returncode == 4, interrupted.stderr
    assert "--resume" in interrupted.stderr
    assert "is not complete" in (folder / "report.html").read_text()


def test_the_knee_is_not_above_what_the_slots_allow(complete: subprocess.CompletedProcess[str]) -> None:
    assert complete.returncode == 0, complete.stderr
    result = json.loads(complete.stdout)
    # The machine may be busy, so nothing is said about how near it comes.
    assert 0 < result["knee"]["requests_per_second"] <= 1.3 * WORKERS / SPEAKING_SECONDS
    assert result["complete"]
    assert any(step["broken_by"] for step in result["steps"])
    assert result["host"]["slots"] == WORKERS
    assert result["knee"]["dollars_per_million_characters"] > 0
    assert result["knee"]["hosts"] >= 2


def test_a_run_that_goes_on_keeps_what_was_measured(
    interrupted: subprocess.CompletedProcess[str], complete: subprocess.CompletedProcess[str]
) -> None:
    measured = [line for line in interrupted.stderr.splitlines() if "at once" in line]
    assert measured
    assert not set(measured) & set(complete.stderr.splitlines())


def test_the_measured_times_are_those_of_the_workers(complete: subprocess.CompletedProcess[str], folder: Path) -> None:
    study = json.loads((folder / "report.json").read_text())
    for level in study["levels"]:
        totals = level["totals"]
        assert totals["synthesis_seconds"] / totals["utterances"] >= SPEAKING_SECONDS - 0.01
    assert study["cached_rate"] > WORKERS / SPEAKING_SECONDS


def test_the_plan_has_hosts_for_the_load(complete: subprocess.CompletedProcess[str]) -> None:
    plan = json.loads(complete.stdout)["plan"]
    assert plan["error"] is not None
    (row,) = plan["hosts"]
    assert row["short_p95"] is None, "a file of texts says nothing of their length"
    assert row["cpus"] == 64
    assert row["requests_per_minute"] >= 1000


def test_the_report_needs_nothing_else(complete: subprocess.CompletedProcess[str], folder: Path) -> None:
    report = (folder / "report.html").read_text()
    assert report.count("<svg") >= 6
    assert "<script" not in report
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", report)
    for words in ("requests a minute", "audio seconds a minute", "a million characters", "With cache hits"):
        assert words in report


def test_other_conditions_are_not_mixed(complete: subprocess.CompletedProcess[str], folder: Path, url: str) -> None:
    other = capacity(folder, url, "--resume", "--seed", "7")
    assert other.returncode == 1
    assert "another seed" in other.stderr


def test_no_server(folder: Path) -> None:
    assert capacity(folder, "http://127.0.0.1:1").returncode == 3


def test_the_load_test_sweeps_by_the_same_command() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "loadtest", "--sweep", "--help"], check=True, capture_output=True, text=True
    )
    assert "chorus capacity" in done.stdout
