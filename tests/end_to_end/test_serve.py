"""`chorus serve` as its users meet it: what it prints, refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from balancer.host.processes import end_tree, free_port
from scripts.support.recogniser import word_error_rate
from tests.end_to_end.conftest import CHORUS, STOP_SECONDS, Chorus, start_chorus
from tests.support.harness import ROOT, TIMEOUT, environment, wait_until

SECRET = "0123456789abcdef"


def test_what_it_says_when_ready_works_as_it_stands(tmp_path: Path) -> None:
    with start_chorus("--workers", "2") as chorus:
        said = chorus.log.read_text()
        assert "Engine hibari" in said
        assert "2 of 2 workers" in said
        command = re.search(r"^  (curl .*?hello\.wav)$", said, re.MULTILINE | re.DOTALL)
        assert command is not None
        words = shlex.split(command[1])
        sent = {"Content-Type": "application/json"}
        answer = httpx.post(words[1], content=words[words.index("-d") + 1], headers=sent)
        assert word_error_rate("Hello from chorus.", answer.raise_for_status().content) <= 0.34

        command = re.search(r"^  (.* say .*)$", said, re.MULTILINE)
        assert command is not None
        subprocess.run(shlex.split(command[1]), cwd=tmp_path, check=True, env=environment(), capture_output=True)
        assert (tmp_path / "hello.wav").read_bytes()[:4] == b"RIFF"

        page = re.search(r"^  (\S+) .* in a browser$", said, re.MULTILINE)
        assert page is not None
        assert httpx.get(page[1]).raise_for_status().headers["content-type"] == "text/html; charset=utf-8"


def test_ctrl_c_ends_all_of_it() -> None:
    with start_chorus("--workers", "1") as chorus:
        children = chorus.children()
        os.kill(chorus.process.pid, signal.SIGINT)
        assert chorus.process.wait(STOP_SECONDS) == 0
        _, alive = psutil.wait_procs(children, timeout=TIMEOUT)
        assert alive == []
        assert "stopped: balancer (exit status 0)" in chorus.log.read_text()


def test_what_is_in_flight_is_finished_before_the_end_while_the_port_is_closed() -> None:
    text = "The quick brown fox jumps over the lazy dog near the river bank. " * 20
    with start_chorus("--workers", "1") as chorus, ThreadPoolExecutor(1) as client:
        answer = client.submit(httpx.post, f"{chorus.url}/tts", json={"text": text}, timeout=60)
        wait_until(lambda: chorus.workers()[0]["phase"] == "busy")
        os.kill(chorus.process.pid, signal.SIGTERM)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", int(chorus.url.rpartition(":")[2]))).close()
            except (ConnectionRefusedError, ConnectionResetError):
                return True
            return False

        wait_until(refused)
        assert answer.result().status_code == 200
        assert refused()
        assert chorus.process.wait(STOP_SECONDS) == 0


@pytest.fixture(scope="module")
def keyed() -> Iterator[Chorus]:
    """A server whose environment holds secrets, SECRET among its API keys, on its own address; its log is JSON."""
    variables = {"HF_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "HTTPS_PROXY": f"http://user:{SECRET}@localhost"}
    options = ("--workers", "1", "--host", "127.0.0.2")
    settings: dict[str, Any] = {"api_keys": SECRET, "log_format": "json"}
    with start_chorus(*options, host_name="127.0.0.2", variables=variables, **settings) as chorus:
        yield chorus


def test_workers_get_no_secrets(keyed: Chorus) -> None:
    workers = [process for process in keyed.children() if "worker" in process.cmdline()]
    assert workers
    for process in workers:
        environ = process.environ()
        assert environ["ORT_DISABLE_TELEMETRY"] == "1"
        assert not any(SECRET in value for value in environ.values())
        assert process.net_connections("tcp") == [], "it does not hold the port either"


def test_a_reader_that_stops_reading_the_output_stops_nothing(tmp_path: Path) -> None:
    port = free_port()
    env = environment(run_dir=tmp_path / "r", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    command = [str(CHORUS), "serve", "--workers", "1", "--port", str(port)]
    # Little room in the pipe and long lines, so that few requests fill it many times over.
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, pipesize=4096, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            while b"Chorus is ready" not in process.stdout.readline():
                assert process.poll() is None
            headers = {"X-Request-Id": "a" * 128}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
                said = {client.post("/tts", json={"text": "Hello."}).status_code for _ in range(700)}
                assert said == {200}
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0
        finally:
            end_tree(process)


def test_every_line_of_the_log_is_json_in_utc_and_none_is_critical(keyed: Chorus) -> None:
    # Without the last line, which may be half written.
    lines = [json.loads(line) for line in keyed.log.read_text().split("\n")[:-1]]
    assert {line["process"] for line in lines} >= {"serve", "supervisord", "balancer"}
    assert {datetime.fromisoformat(line["time"]).utcoffset() for line in lines} == {timedelta(0)}
    assert not [line for line in lines if line["level"] == "critical"]


def test_what_keeps_it_from_starting_is_a_line_of_json_and_not_to_be_tried_again() -> None:
    environ = environment(log_format="json", slots="none", port="many")
    done = subprocess.run(
        [ROOT / "scripts" / "serve"], check=False, capture_output=True, text=True, env=environ, cwd="/"
    )
    (line,) = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert (done.returncode, line["level"], line["process"]) == (os.EX_CONFIG, "error", "serve")
    assert [fault.partition(":")[0] for fault in line["message"].splitlines()] == ["CHORUS_PORT", "CHORUS_SLOTS"]


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chorus]:
    """A server on all addresses of both families, whose voices lie at a path with a space."""
    voices = tmp_path_factory.mktemp("home") / "my voices"
    (voices / "default").mkdir(parents=True)
    (voices / "default" / "voice.toml").write_text((ROOT / "voices" / "default" / "voice.toml").read_text())
    with start_chorus("--workers", "1", "--host", "::", allow_anonymous="true", voices_dir=voices) as chorus:
        yield chorus


def test_both_families_are_served_where_both_are_asked_for(everywhere: Chorus) -> None:
    port = everywhere.url.rpartition(":")[2]
    assert f"at http://127.0.0.1:{port}" in everywhere.log.read_text()
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{port}/ready").status_code == 200


def test_a_second_one_on_the_same_port_is_refused(everywhere: Chorus) -> None:
    port = everywhere.url.rpartition(":")[2]
    second = subprocess.run(
        [CHORUS, "serve", "--port", port], check=False, capture_output=True, text=True, env=environment(), cwd=ROOT
    )
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in " ".join(second.stderr.split())
    assert everywhere.health()["status"] == "healthy"


def test_paths_with_spaces_are_fine(everywhere: Chorus) -> None:
    assert httpx.post(f"{everywhere.url}/tts", json={"text": "Hello."}).status_code == 200


def test_keys_of_the_operator_are_asked_for(keyed: Chorus) -> None:
    body = {"text": "Hello."}
    assert httpx.post(f"{keyed.url}/tts", json=body).status_code == 401
    assert httpx.post(f"{keyed.url}/tts", json=body, headers={"X-API-Key": SECRET}).status_code == 200
    assert httpx.get(f"{keyed.url}/ready").status_code == 200
