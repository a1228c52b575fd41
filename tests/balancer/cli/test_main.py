"""The `chorus` command against a real balancer: mostly in this process, else as an installed program."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest
from typer.testing import Result

from balancer.host.processes import free_port
from balancer.settings.settings import tables
from balancer.version import FULL_VERSION
from tests.support.cli import clean_shell, invoke
from tests.support.harness import (
    ROOT,
    TIMEOUT,
    Server,
    environment,
    serve_stub,
    start_balancer,
    start_stub,
    wait_until,
)
from worker.contract import Phase

CHORUS = str(Path(sys.executable).with_name("chorus"))
KEY = "0123456789abcdef"
SECONDS = 100_000 / 2 / 24_000
"""Duration of a stub's audio."""

COMMANDS = ["serve", "layout", "settings", "say", "voices", "status"]
START = {
    "wav": b"RIFF",
    "mp3": b"ID3",
    "flac": b"fLaC",
    "opus": b"OggS",
    "aac": b"\xff\xf1",
    "pcm": b"\0\0\0\0",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as server:
        yield server


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current directory, a wide terminal, no variables."""
    monkeypatch.chdir(tmp_path)
    clean_shell(monkeypatch)


def run(*arguments: str, url: str | None = None, stdin: bytes = b"", **variables: str) -> Result:
    """Runs the command in this process."""
    return invoke(*arguments, stdin=stdin, **variables, **({"CHORUS_URL": url} if url is not None else {}))


def start(
    *arguments: str | bytes, url: str, stdin: bytes = b"", stdout: int | IO[bytes] = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """Runs the installed program."""
    return subprocess.run(
        [CHORUS, *arguments],
        check=False,
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment() | {"CHORUS_URL": url},
        timeout=TIMEOUT,
    )


def seconds(wav: bytes) -> float:
    with wave.open(io.BytesIO(wav)) as file:
        return float(file.getnframes() / file.getframerate())


# say


@pytest.mark.parametrize("ending", [*START, "WAV", "Mp3"])
def test_the_output_files_suffix_selects_the_format(server: Server, ending: str) -> None:
    result = run("say", "Hello.", "-o", f"hello.{ending}", url=server.url)
    assert result.exit_code == 0, result.stderr
    assert Path(f"hello.{ending}").read_bytes().startswith(START[ending.lower()])
    assert result.stderr == f"hello.{ending}: 2.1 s of {ending.lower()}\n"
    assert result.stdout == ""


def test_the_format_option_takes_precedence_over_the_suffix(server: Server) -> None:
    result = run("say", "Hello.", "-o", "hello.xyz", "--format", "flac", url=server.url)
    assert result.exit_code == 0
    assert Path("hello.xyz").read_bytes().startswith(b"fLaC")


@pytest.mark.parametrize("name", ["hello.xyz", "hello", ".wav", "wav"])
def test_an_unknown_suffix_is_a_wrong_command_line(server: Server, name: str) -> None:
    before = server.stub.state().done
    result = run("say", "Hello.", "-o", name, url=server.url)
    assert result.exit_code == 2
    assert f"cannot tell the format from '{name}'" in result.stderr
    assert ".mp3, .opus, .aac, .flac, .wav, .pcm" in result.stderr
    assert "--format" in result.stderr
    assert not Path(name).exists()
    assert server.stub.state().done == before


def test_speed_and_seed_are_sent(server: Server) -> None:
    result = run("say", "Hello.", "-o", "fast.wav", "--speed", "2", "--seed", "7", url=server.url)
    assert result.exit_code == 0
    assert seconds(Path("fast.wav").read_bytes()) == pytest.approx(SECONDS / 2, abs=0.01)
    assert "1.0 s of wav" in result.stderr


def test_brackets_in_a_file_name_are_shown(server: Server) -> None:
    result = run("say", "Hello.", "-o", "[red]take[2].wav", url=server.url)
    assert result.stderr.startswith("[red]take[2].wav: ")
    assert Path("[red]take[2].wav").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--speed", "5"), ("--speed", "0"), ("--speed", "nan"), ("--seed", "-1"), ("--seed", "1.5")]
)
def test_a_value_out_of_range_is_a_wrong_command_line(server: Server, option: str, value: str) -> None:
    result = run("say", "Hello.", option, value, url=server.url)
    assert result.exit_code == 2
    assert option in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Hello.", "--voice", "nobody"], "there is no voice 'nobody'; there are: default"),
        ([""], "text: is empty; send some text to speak"),
        (["?!"], "text: has no letter or digit, so there is nothing to speak"),
        (["fail"], "the stub was told to fail"),
    ],
)
def test_the_servers_error_message_is_printed(server: Server, arguments: list[str], message: str) -> None:
    result = run("say", *arguments, "-o", "hello.wav", url=server.url)
    assert result.exit_code == 1
    assert result.stderr == f"chorus: {message}\n"
    assert not Path("hello.wav").exists()


def test_no_server() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for arguments in (["say", "Hello.", "-o", "hello.wav"], ["voices"], ["status", "--once"]):
        result = run(*arguments, url=url)
        assert result.exit_code == 3
        assert result.stderr.startswith(f"chorus: no answer from {url} (")
        assert "is the server running?" in result.stderr
    assert not Path("hello.wav").exists()


@pytest.mark.parametrize("url", ["nonsense", "localhost:5000", "ftp://localhost", "http://[::1", "http://", "//x"])
def test_an_invalid_url_is_a_wrong_command_line(url: str) -> None:
    result = run("say", "Hello.", "--url", url)
    assert result.exit_code == 2
    assert f"--url '{url}' is not a URL such as http://127.0.0.1:5000" in result.stderr


def test_a_url_may_end_in_a_slash(server: Server) -> None:
    assert run("say", "Hello.", "-o", "a.wav", "--url", f"{server.url}/").exit_code == 0


def test_a_server_that_is_not_chorus(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [CHORUS, "voices", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"],
            stderr=subprocess.PIPE,
            env=environment(),
        )
        with listener.accept()[0] as client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhat")
            _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert b"answered 502; is that a Chorus server?" in errors


def test_a_file_that_cannot_be_written(server: Server) -> None:
    result = run("say", "Hello.", "-o", "nowhere/hello.wav", url=server.url)
    assert result.exit_code == 1
    assert result.stderr == "chorus: cannot write nowhere/hello.wav: No such file or directory\n"


def test_text_from_standard_input(server: Server) -> None:
    result = run("say", "-", "-o", "hello.wav", url=server.url, stdin="Ein schöner Tag.\r\n".encode())
    assert result.exit_code == 0
    assert seconds(Path("hello.wav").read_bytes()) == pytest.approx(SECONDS)
    assert run("say", "-", "-o", "b.wav", url=server.url, stdin=b"").exit_code == 1


def test_audio_goes_into_a_pipe(server: Server) -> None:
    answer = start("say", "-", "--voice", "alloy", url=server.url, stdin=b"Hello from a pipe.\n")
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert seconds(answer.stdout) == pytest.approx(SECONDS)
    assert not list(Path().iterdir())


def test_audio_is_played_while_it_is_made(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, player = tmp_path / "heard.wav", tmp_path / "ffplay"
    player.write_text(f"#!/bin/sh\n/bin/cat >{heard}\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    result = run("say", SENTENCES, "--play", url=server.url)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert heard.read_bytes()[40:44] == b"\xff\xff\xff\xff", "a WAV whose length is not known yet"
    assert len(heard.read_bytes()) > 44
    assert run("say", "Hello.", "--play", "-o", "hello.wav", url=server.url).exit_code == 2


def test_audio_of_any_format_goes_into_a_pipe(server: Server) -> None:
    answer = start("say", "Hello.", "--format", "mp3", url=server.url)
    assert answer.stdout.startswith(b"ID3")


SENTENCES = "This is the first sentence of a text. This is the second one."


def test_a_long_text_goes_into_a_pipe_while_it_is_made_and_into_a_file_whole(server: Server, tmp_path: Path) -> None:
    answer = start("say", SENTENCES, url=server.url)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert answer.stdout[40:44] == b"\xff\xff\xff\xff"
    with (tmp_path / "whole.wav").open("wb") as file:
        assert start("say", SENTENCES, url=server.url, stdout=file).returncode == 0
    whole = (tmp_path / "whole.wav").read_bytes()
    assert seconds(whole) > SECONDS
    assert whole[44:] == answer.stdout[44:]


def test_an_answer_that_breaks_off_is_an_error(server: Server) -> None:
    answer = start("say", "The first paragraph is here.\n\nfail", url=server.url)
    assert answer.returncode == 1
    assert b"broke its answer off" in answer.stderr


@pytest.mark.parametrize("text", [b"caf\xe9", b"-"])
def test_text_that_is_not_utf8_is_a_wrong_command_line(server: Server, text: bytes) -> None:
    answer = start("say", text, url=server.url, stdin=b"caf\xe9")
    assert answer.returncode == 2
    assert b"the text must be UTF-8" in answer.stderr
    assert b"Traceback" not in answer.stderr
    assert answer.stdout == b""


def test_a_full_disk_behind_standard_output_is_reported(server: Server) -> None:
    with Path("/dev/full").open("wb") as full:
        answer = start("say", "Hello.", url=server.url, stdout=full)
    assert answer.returncode == 1
    assert answer.stderr.startswith(b"chorus: cannot write to standard output: No space left on device\n")
    assert b"Traceback" not in answer.stderr


def test_a_closed_pipe_ends_the_command_quietly(server: Server) -> None:
    process = subprocess.Popen(
        [CHORUS, "say", "Hello."],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment() | {"CHORUS_URL": server.url},
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (1, b"")


# Terminals


class Terminal:
    """A `chorus` process on its own terminal."""

    def __init__(self, *arguments: str, url: str) -> None:
        self._master, slave = os.openpty()
        self.process = subprocess.Popen(
            [CHORUS, *arguments], stdout=slave, stderr=slave, env=environment() | {"CHORUS_URL": url, "TERM": "xterm"}
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def shows(self, text: str) -> bool:
        try:
            self.shown += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # no output yet, or the process has ended
            assert self.process.poll() in (None, 0), self.shown
        return text in self.shown


def test_on_a_terminal_audio_goes_to_a_file(server: Server) -> None:
    with Terminal("say", "Hello.", url=server.url) as terminal:
        wait_until(lambda: terminal.shows("speech.wav: 2.1 s of wav"))
        assert terminal.process.wait(TIMEOUT) == 0
    assert Path("speech.wav").read_bytes().startswith(b"RIFF")
    assert "RIFF" not in terminal.shown


def test_on_a_terminal_status_runs_until_it_is_interrupted(server: Server) -> None:
    with Terminal("status", url=server.url) as terminal:
        wait_until(lambda: terminal.shows("healthy, 0 queued"))
        assert httpx.post(f"{server.url}/tts", json={"text": "Hello."}, timeout=TIMEOUT).status_code == 200
        done = str(server.stub.state().done)
        wait_until(lambda: terminal.shows("ready") and bool(re.search(rf"MiB\W+{done}\W", terminal.shown)))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(TIMEOUT) == 0
        assert not terminal.shows("Traceback")


# status


def test_status_once(server: Server) -> None:
    for arguments in (["status", "--once"], ["status"]):  # no terminal here
        result = run(*arguments, url=server.url)
        assert result.exit_code == 0
        assert "healthy, 0 queued" in result.stdout
        assert str(server.stub.process.pid) in result.stdout


def test_status_as_json(server: Server) -> None:
    result = run("status", "--json", url=server.url)
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["status"] == "healthy"
    assert [worker["pid"] for worker in report["workers"]] == [server.stub.process.pid]


def phases(url: str) -> list[str]:
    workers = httpx.get(f"{url}/health", timeout=TIMEOUT, trust_env=False).json()["workers"]
    return [worker["phase"] for worker in workers]


def test_status_of_an_unhealthy_server(run_dir: Path) -> None:
    with start_stub(run_dir, phase=Phase.FAILED), start_balancer(run_dir, ready=0, recovery_seconds=0) as url:
        wait_until(lambda: phases(url) == ["failed"])
        once, as_json = run("status", "--once", url=url), run("status", "--json", url=url)
        spoken = run("say", "Hello.", url=url)
    assert (once.exit_code, as_json.exit_code, spoken.exit_code) == (1, 1, 1)
    assert "unhealthy, 0 queued: no worker can load its model: there are no weights" in once.stdout
    assert "failed (there are no weights; run: make weights)" in once.stdout
    assert json.loads(as_json.stdout)["status"] == "unhealthy"
    assert spoken.stderr.startswith("chorus: no worker is available: no worker can load its model")


def test_status_of_a_server_with_keys_comes_from_its_control_socket_on_this_host() -> None:
    with serve_stub(api_keys="an-api-key-of-twenty-or-more") as server:
        here = run("status", "--once", url=server.url, CHORUS_RUN_DIR=str(server.log.parent))
        assert here.exit_code == 0, here.output
        assert str(server.stub.process.pid) in here.stdout
        elsewhere = run("status", "--once", url=server.url, CHORUS_RUN_DIR="/nowhere")
        assert elsewhere.exit_code == 1
        assert "without an API key" in elsewhere.stderr


# Keys


def test_a_server_with_keys(run_dir: Path) -> None:
    with start_stub(run_dir), start_balancer(run_dir, api_keys=KEY) as url:
        for arguments in (["say", "Hello.", "-o", "a.wav"], ["voices"]):
            for refused in (run(*arguments, url=url), run(*arguments, "--api-key", "wrong", url=url)):
                assert refused.exit_code == 1
                assert refused.stderr.startswith("chorus: a valid API key is required")
            assert run(*arguments, "--api-key", KEY, url=url).exit_code == 0
            assert run(*arguments, url=url, CHORUS_API_KEY=KEY).exit_code == 0
        assert run("status", "--once", "--api-key", KEY, url=url).exit_code == 0


@pytest.mark.parametrize("key", ["clé", "a\nb", f"{KEY}\r"])
def test_a_key_that_cannot_be_sent_is_not_shown(server: Server, key: str) -> None:
    result = run("voices", "--api-key", key, url=server.url)
    assert result.exit_code == 2
    assert "an API key printable ASCII" in result.stderr
    assert key.strip() not in result.stderr


# Commands that need no server: serve, layout, settings


def test_layout() -> None:
    result = run("layout", "--cores", "0", "--threads", "1")
    assert result.exit_code == 0
    assert "Engine hibari" in result.stdout
    assert re.search(r"│ 0 +│ 0 +│ 1 +│", result.stdout)
    assert "1 worker on the requested CPUs." in result.stdout


def test_layout_of_this_host() -> None:
    assert "Engine hibari" in run("layout").stdout


@pytest.mark.parametrize("command", ["layout", "serve"])
@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--workers", "0"], {}, "CHORUS_WORKERS: Input should be greater than or equal to 1 (got 0)"),
        (["--threads", "1000"], {}, "CHORUS_THREADS: Input should be less than or equal to 256 (got 1000)"),
        (["--engine", "x"], {}, "CHORUS_ENGINE: there is no such engine; there are: chatterbox, hibari, multi"),
        (["--cores", "x"], {}, "CHORUS_CORES: 'x' is neither a CPU number nor an ascending range"),
        (["--cores", ""], {}, "CHORUS_CORES: '' is neither a CPU number nor an ascending range"),
        ([], {"CHORUS_PORT": "x"}, "CHORUS_PORT: Input should be a valid integer"),
        ([], {"CHORUS_PROT": "1"}, "CHORUS_PROT is no setting; there are: CHORUS_HOST"),
    ],
)
def test_invalid_settings(command: str, arguments: list[str], variables: dict[str, str], message: str) -> None:
    result = run(command, *arguments, url=None, stdin=b"", **variables)
    assert result.exit_code == os.EX_CONFIG
    assert result.stderr.startswith(f"chorus: {message}")
    assert result.stderr.count("\n") == 1


def test_serve_does_not_go_public_by_accident() -> None:
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == os.EX_CONFIG
    assert result.stderr.startswith("chorus: refusing to listen on 0.0.0.0 without API keys")
    assert "--allow-anonymous" in result.stderr


def test_serve_on_a_port_that_is_taken(run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("serve", "--port", str(port), CHORUS_RUN_DIR=str(run_dir / "run"))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"chorus: cannot listen on 127.0.0.1:{port}: Address already in use")


def test_the_version() -> None:
    assert run("--version").stdout == f"chorus {FULL_VERSION}\n"


def test_settings_as_markdown() -> None:
    lines = run("settings", "--markdown").stdout.splitlines()
    assert lines[:4] == ["## Server", "", "| variable | default | meaning |", "|---|---|---|"]
    assert "| `CHORUS_PORT` | `5000` | Port to listen on. |" in lines
    assert [line.removeprefix("## ") for line in lines if line.startswith("#")] == [group.title for group in tables()]
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == sum(len(group.rows) for group in tables())
    # A bar in a cell would end the cell.
    assert all(row.count("|") == 4 for row in rows)


def test_settings_as_a_table() -> None:
    output = run("settings").stdout
    for group in tables():
        assert group.title in output
        assert all(name in output and meaning.split(".")[0] in output for name, _, meaning in group.rows)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(command: list[str], option: str) -> None:
    result = run(*command, option)
    assert result.exit_code == 0
    assert f"Usage: root {' '.join(command)}".rstrip() in result.stdout
    if not command:
        assert all(name in result.stdout for name in COMMANDS)


def test_without_a_command_there_is_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert all(name in result.stdout + result.stderr for name in COMMANDS)


@pytest.mark.parametrize("arguments", [["nothing"], ["say"], ["say", "a", "b"], ["status", "--twice"]])
def test_a_wrong_command_line(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_the_program_is_installed() -> None:
    answer = subprocess.run([CHORUS, "--help"], check=True, capture_output=True, cwd=ROOT, env=environment())
    assert b"Text to speech at scale" in answer.stdout
