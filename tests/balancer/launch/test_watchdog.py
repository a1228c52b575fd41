from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pytest

from balancer.launch.stand_in import StandIn
from balancer.launch.watchdog import BalancerWatchdog, run, runs
from balancer.operations import heartbeat
from tests.support.harness import wait_until

TICK = "ver:3.0 server:supervisor serial:1 pool:watchdog poolserial:1 eventname:TICK_5 len:15\nwhen:1201063880"


def test_a_process_is_due_once_it_was_silent_for_the_whole_time() -> None:
    watchdog = BalancerWatchdog(15)
    assert [watchdog.tick({7: 1, 8: 1}) for _ in range(3)] == [[], [], []]
    assert watchdog.tick({7: 1, 8: 2}) == [7]
    assert watchdog.tick({7: 1, 8: 3}) == [], "it is told once"


def test_a_beat_in_time_and_a_new_process_begin_anew() -> None:
    watchdog = BalancerWatchdog(10)
    assert [watchdog.tick({7: count}) for count in (1, 1, 2, 2)] == [[], [], [], []]
    assert watchdog.tick({8: 2}) == []
    assert watchdog.tick({8: 2}) == []
    assert watchdog.tick({8: 2}) == [8]


def test_it_speaks_the_protocol_of_event_listeners_and_kills_none_but_balancers(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "other"], stdin=subprocess.PIPE) as other:
        (tmp_path / f"balancer{heartbeat.SUFFIX}").write_bytes(other.pid.to_bytes(8, sys.byteorder) + bytes(8))
        answers = io.StringIO()
        run(tmp_path, BalancerWatchdog(5), io.StringIO(3 * TICK), answers)
        assert answers.getvalue() == 3 * "READY\nRESULT 2\nOK" + "READY\n"
        assert other.poll() is None
        other.communicate(b"\n")


def test_systemd_is_told_that_supervisord_is_alive(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(run_dir / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(run_dir / "notify"))
        run(run_dir, None, io.StringIO(TICK), io.StringIO())
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_the_stand_in_answers_once_no_balancer_has_run_for_three_ticks(tmp_path: Path) -> None:
    answers, ticks = io.StringIO(), list[int]()

    class Recorder(StandIn):
        def start(self) -> None:
            ticks.append(answers.getvalue().count("OK"))

    def run_ticks(events: TextIO, watchdog: BalancerWatchdog | None = None) -> None:
        answers.seek(0)
        answers.truncate()
        ticks.clear()
        run(tmp_path, watchdog, events, answers, Recorder([], lambda: False))

    run_ticks(io.StringIO(4 * TICK))
    assert ticks == [2, 3]
    with subprocess.Popen([sys.executable, "-c", "input()", "balancer"], stdin=subprocess.PIPE) as balancer:
        (tmp_path / f"balancer{heartbeat.SUFFIX}").write_bytes(balancer.pid.to_bytes(8, sys.byteorder) + bytes(8))
        wait_until(lambda: runs(tmp_path))  # a process has no command line while it replaces its program
        run_ticks(io.StringIO(4 * TICK))
        assert ticks == []
        reading, writing = os.pipe()

        def send_ticks() -> None:
            with os.fdopen(writing, "w") as events:
                print(2 * TICK, end="", file=events, flush=True)
                assert balancer.wait() == -signal.SIGKILL
                print(3 * TICK, end="", file=events)

        with ThreadPoolExecutor() as threads, os.fdopen(reading) as events:
            sent = threads.submit(send_ticks)
            run_ticks(events, BalancerWatchdog(5))  # silent since the first tick, it is killed at the second
            sent.result()
    assert ticks == [4]
