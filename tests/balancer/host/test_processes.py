"""Child processes: real ones, started, awaited and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from balancer.host.processes import (
    ProcessEndedError,
    await_ready,
    end_tree,
    free_port,
    log_tail,
    process_tree,
    running,
    wait_until,
)
from tests.support.harness import ROOT, TIMEOUT

PARENT = "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('started', flush=True); {then}"
"""A Python program with a child that sleeps."""


def parent(then: str = "time.sleep(600)") -> list[str]:
    return [sys.executable, "-c", PARENT.format(then=then)]


def await_start(process: subprocess.Popen[bytes], log: Path) -> list[psutil.Process]:
    await_ready(process, lambda: b"started" in log.read_bytes(), timeout=TIMEOUT)
    return process_tree(process.pid)


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_waiting_has_an_end() -> None:
    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        wait_until(lambda: False, timeout=0.1)


def test_the_output_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier run")
    with running(["sh", "-c", "echo out; echo error >&2"], log=log) as process:
        process.wait(TIMEOUT)
    assert log.read_text() == "out\nerror\n"


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\nsecond \xff\nthird\n\n")
    assert log_tail(log, 3) == "second \N{REPLACEMENT CHARACTER}\nthird"


def test_a_process_that_ends_is_not_awaited() -> None:
    with running(["sh", "-c", "exit 3"]) as process, pytest.raises(ProcessEndedError, match="ended with 3") as caught:
        await_ready(process, lambda: False, timeout=TIMEOUT)
    assert caught.value.returncode == 3


def test_a_process_that_is_never_ready_is_awaited_for_so_long() -> None:
    with running(["sleep", "600"]) as process, pytest.raises(TimeoutError):
        await_ready(process, lambda: False, timeout=0.1)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("grace_seconds", "signum"), [(0.0, signal.SIGKILL), (2.0, signal.SIGTERM)])
def test_the_end_of_the_block_ends_all_descendants(
    tmp_path: Path, grace_seconds: float, signum: signal.Signals
) -> None:
    log = tmp_path / "log"
    with running(parent(), log=log, grace_seconds=grace_seconds) as process:
        tree = await_start(process, log)
    assert len(tree) == 2
    assert not any(one.is_running() for one in tree)
    assert process.returncode == -signum


def test_what_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ignored', flush=True)"
    with running(parent(f"{ignoring}; time.sleep(600)"), log=log) as process:
        await_ready(process, lambda: b"ignored" in log.read_bytes(), timeout=TIMEOUT)
        tree = process_tree(process.pid)
        end_tree(process, grace_seconds=0.2)
        assert process.returncode == -signal.SIGKILL
        assert not any(one.is_running() for one in tree)


def test_an_error_in_the_block_ends_the_process() -> None:
    with pytest.raises(ZeroDivisionError), running(["sleep", "600"]) as process:
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("death_signal", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_does_not_outlive_a_starter_that_is_killed(tmp_path: Path, death_signal: signal.Signals) -> None:
    log = tmp_path / "log"
    code = (
        "import signal, time; from pathlib import Path; from balancer.host.processes import running\n"
        f"with running(['sleep', '600'], death_signal=signal.{death_signal.name}) as process:\n"
        "    print('started', process.pid, flush=True); time.sleep(600)"
    )
    with running([sys.executable, "-c", code], log=log, cwd=ROOT) as starter:
        await_ready(starter, lambda: log.read_text().endswith("\n"), timeout=TIMEOUT)
        started = psutil.Process(int(log.read_text().split()[1]))
        starter.kill()
        wait_until(lambda: not started.is_running() or started.status() == psutil.STATUS_ZOMBIE, timeout=TIMEOUT)


def test_ctrl_c_at_a_terminal_reaches_the_starter_alone() -> None:
    with running(["sleep", "600"]) as process:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)


def test_an_interrupt_during_the_start_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        signal.raise_signal(signal.SIGINT)
        started.append(popen(*arguments, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), running(["sleep", "600"]):
        pass
    assert [process.returncode for process in started] == [-signal.SIGKILL]
