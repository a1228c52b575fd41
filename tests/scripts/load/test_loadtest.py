"""The load test as a program, with a real server."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from balancer.load import arrivals
from scripts.load.__main__ import main
from tests.support.bench import invoke
from tests.support.harness import serve_stub
from tests.support.slow_server import SlowServerOptions, slow_server

ROOT = Path(__file__).parents[3]
LOADTEST = str(ROOT / "scripts" / "loadtest")
TIMEOUT = 60  # seconds after which a test fails

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a slow server with these options; gives its URL."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(slow_server(SlowServerOptions(**options)))


class Result:
    """One run of the program: the process and the contents of its JSON file."""

    def __init__(self, folder: Path, url: str, *options: str, **environment: str) -> None:
        file = folder / "result.json"
        self.process = subprocess.run(
            [LOADTEST, "--url", url, "--json", file, "--records", *options],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=os.environ | environment,
        )
        report = json.loads(file.read_text()) if file.exists() else {}
        self.settings: dict[str, Any] = report.get("settings", {})
        self.summary: dict[str, Any] = report.get("summary", {})
        self.records: list[dict[str, Any]] = report.get("records", [])


def seen(url: str, at_least: int) -> list[dict[str, Any]]:
    """The requests that the server has received, once there are that many."""
    requests: list[dict[str, Any]] = httpx.get(f"{url}/seen?at_least={at_least}", timeout=TIMEOUT).json()
    return requests


def test_the_summary_of_a_run_without_failures(serve: Serve, tmp_path: Path) -> None:
    url = serve(slots=4, audio=2)
    result = Result(tmp_path, url, "--requests", "40", "--repeat", "0.5")
    summary, records = result.summary, result.records
    assert result.process.returncode == 0, result.process.stderr
    assert summary["requests"] == summary["succeeded"] == len(records) == len(seen(url, 40)) == 40
    assert summary["failed"] == summary["abandoned"] == 0
    assert summary["errors"] == {}
    assert summary["repeated"] == sum(record["repeated"] for record in records) > 0
    assert summary["audio_seconds"] == pytest.approx(80)
    assert summary["audio_seconds_per_second"] == pytest.approx(80 / summary["seconds"])
    assert summary["requests_per_minute"] == pytest.approx(60 * 40 / summary["seconds"])
    assert summary["latency"]["max"] == max(record["latency"] for record in records)
    by_length = {length: spread["requests"] for length, spread in summary["latency_by_length"].items()}
    assert by_length == Counter(record["length"] for record in records)
    assert result.settings["url"] == url
    assert result.settings["concurrency"] == 4
    for cell in ("succeeded", "requests per minute", "audio seconds per second", "p99", "short"):
        assert cell in result.process.stdout
    assert result.process.stderr == ""


def test_the_requests_have_the_options(serve: Serve, tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("Guten Morgen.\n\nGute Nacht.\n")
    url = serve()
    options = (
        "--requests",
        "3",
        "--concurrency",
        "1",
        "--texts",
        str(lines),
        "--voice",
        "Anna",
        "--format",
        "mp3",
    )
    result = Result(tmp_path, url, *options, CHORUS_API_KEY="key-of-the-test")
    requests = seen(url, 3)
    assert [request["body"]["text"].partition(": ")[2] for request in requests] == [
        "Guten Morgen.",
        "Gute Nacht.",
        "Guten Morgen.",
    ]
    assert all(request["body"].items() >= {"voice": "Anna", "format": "mp3"}.items() for request in requests)
    assert all(request["authorization"] == "Bearer key-of-the-test" for request in requests)
    assert "key-of-the-test" not in (tmp_path / "result.json").read_text() + result.process.stdout
    assert result.summary["latency_by_length"] == {}
    assert result.summary["audio_seconds"] is None  # an mp3 does not state its length


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("overloaded", "HTTP 503 overloaded"),
        ("page", "HTTP 502"),
        ("empty", "bad audio"),
        ("garbage", "bad audio"),
        ("cut", "connection"),
    ],
)
def test_errors_are_counted_by_kind(serve: Serve, tmp_path: Path, fault: str, kind: str) -> None:
    result = Result(tmp_path, serve(fault=fault, fault_every=5), "--requests", "20")
    assert result.process.returncode == 1
    assert result.summary["errors"] == {kind: 4}
    assert result.summary["failed"] == 4
    assert result.summary["succeeded"] == result.summary["latency"]["requests"] == 16
    assert kind in result.process.stdout


def test_timed_out_requests_are_failures_and_count_in_the_latencies(serve: Serve, tmp_path: Path) -> None:
    url = serve(slots=2, stall_at=2, stall=TIMEOUT)
    # Long enough that no other request needs it on a busy machine.
    result = Result(tmp_path, url, "--requests", "6", "--concurrency", "1", "--timeout", "5")
    assert result.process.returncode == 1
    assert result.summary["errors"] == {"timeout": 1}
    assert result.summary["latency"]["requests"] == 6
    assert result.summary["latency"]["max"] >= 5


STALL = 1.5


def test_an_open_loop_measures_the_wait_of_all_requests_due_in_a_stall(serve: Serve, tmp_path: Path) -> None:
    url = serve(stall_at=10, stall=STALL)
    result = Result(tmp_path, url, "--rate", "40", "--requests", "100")
    assert result.process.returncode == 0, result.process.stderr
    assert result.summary["latency"]["p99"] >= 0.7 * STALL
    # About 60 requests fell due during the stall, half of them in its first half.
    assert sum(record["latency"] >= STALL / 2 for record in result.records) >= 15
    # Each request was sent when it was due, without waiting for an earlier answer.
    due = list(itertools.islice(arrivals.poisson(40, seed=0), 100))
    assert sorted(record["intended"] for record in result.records) == due
    outstanding = (
        sum(other["intended"] <= at < other["intended"] + other["latency"] for other in result.records) for at in due
    )
    assert max(outstanding) >= 20


def test_a_closed_loop_of_one_client_measures_the_stall_once(serve: Serve, tmp_path: Path) -> None:
    url = serve(stall_at=10, stall=STALL)
    result = Result(tmp_path, url, "--concurrency", "1", "--requests", "100")
    assert result.summary["latency"]["max"] >= STALL
    assert result.summary["latency"]["p95"] < STALL / 2


def test_outstanding_answers_are_awaited_after_the_duration(serve: Serve, tmp_path: Path) -> None:
    url = serve(slots=100, service=1)
    result = Result(tmp_path, url, "--rate", "20", "--requests", "1000", "--duration", "0.8")
    assert result.process.returncode == 0, result.process.stderr
    due = list(itertools.takewhile(lambda at: at < 0.8, arrivals.poisson(20, seed=0)))
    assert result.summary["succeeded"] == len(due) == len(seen(url, 1)) > 1
    assert result.summary["seconds"] >= 1


def test_the_duration_ends_a_closed_loop(serve: Serve, tmp_path: Path) -> None:
    result = Result(tmp_path, serve(service=0.02), "--requests", "1000000", "--duration", "0.5")
    assert result.process.returncode == 0, result.process.stderr
    assert result.summary["succeeded"] == len(result.records)
    assert all(record["intended"] < 0.5 for record in result.records)


@pytest.mark.parametrize("pace", [("--rate", "50"), ("--concurrency", "4")])
def test_ctrl_c_stops_and_still_reports(serve: Serve, tmp_path: Path, pace: tuple[str, str]) -> None:
    url = serve(slots=2, service=0.01)
    command = [LOADTEST, "--url", url, *pace, "--requests", "1000000", "--duration", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        seen(url, 10)
        process.send_signal(signal.SIGINT)
        table, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    counted = re.search(r"succeeded\D+(\d+)", table)
    assert counted
    assert int(counted[1]) == len(seen(url, 10))


def test_a_second_ctrl_c_abandons_the_outstanding(serve: Serve, tmp_path: Path) -> None:
    url = serve(stall_at=3, stall=10 * TIMEOUT)
    file = tmp_path / "result.json"
    command = [LOADTEST, "--url", url, "--concurrency", "1", "--timeout", "1000", "--json", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        seen(url, 3)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert "1 outstanding" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        table, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert "abandoned" in table
    summary = json.loads(file.read_text())["summary"]
    assert (summary["requests"], summary["succeeded"], summary["abandoned"]) == (3, 2, 1)


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen: connections are refused
        result = Result(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert result.process.returncode == 3
    assert "no server answers" in result.process.stderr
    assert "scripts/serve" in result.process.stderr
    assert result.process.stdout == ""


def test_a_server_that_is_not_ready(serve: Serve, tmp_path: Path) -> None:
    result = Result(tmp_path, serve(not_ready=True))
    assert result.process.returncode == 3
    assert "no worker is up" in result.process.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--rate", "5", "--concurrency", "2"),
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--duration", "-1"),
        ("--timeout", "inf"),
        ("--repeat", "1.5"),
        ("--texts", os.devnull),
        ("--url", "ftp://127.0.0.1"),
        ("--template", "Hello."),
        ("--template", "Hello NAME."),
        ("--url", "http://user:secret@127.0.0.1"),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    usual = ("--url", "http://127.0.0.1:1", "--json", str(tmp_path / "result.json"), "--records")
    assert invoke(main, *usual, *options).exit_code == 2


def test_a_template_is_measured_with_the_cache_and_without_by_turns(tmp_path: Path) -> None:
    with serve_stub(cache_dir=tmp_path, cache_mib=10) as server:
        done = subprocess.run(
            [LOADTEST, "--url", server.url, "--template", "Hello NAME. Your order has shipped.", "--requests", "8",
             "--concurrency", "1"],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    counts = re.findall(r"(segments spoken|segments from the cache|requests) +│ +(\d+)", done.stdout)
    assert counts == [
        *(("requests", "8"), ("segments spoken", "9"), ("segments from the cache", "7")),
        *(("requests", "8"), ("segments spoken", "16"), ("segments from the cache", "0")),
    ]


def test_the_launcher_says_how_to_make_a_missing_environment(tmp_path: Path) -> None:
    launcher = tmp_path / "scripts" / "loadtest"
    launcher.parent.mkdir()
    launcher.write_text(Path(LOADTEST).read_text())
    answer = subprocess.run(["bash", launcher], check=False, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "scripts/serve" in answer.stderr
