"""Runs one of the benchmarks as the real program, on tiny checkpoints, and finds all that it started."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.harness import ROOT, environment

TIMEOUT = 600
"""Seconds until something that should have happened did not."""


class Bench:
    """`python -m scripts.benchmarks.PROGRAM` with these options, its checkpoints in `home`."""

    def __init__(self, program: str, home: Path, *options: str) -> None:
        self.home = home
        self._command = [
            sys.executable,
            "-m",
            f"scripts.benchmarks.{program}",
            "--size",
            "tiny",
            "--checkpoints",
            str(home),
            *options,
        ]
        self._started: list[subprocess.Popen[str]] = []
        self._mark = f"BENCH_TEST_{uuid.uuid4().hex}"

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Run it with further options."""
        process = subprocess.Popen(
            [*self._command, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Every process below inherits the variable, wherever it has gone to. Messages stay in one line.
            env=environment() | {self._mark: "1", "COLUMNS": "200"},
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Let nothing that a failed test started outlive it."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def left(self) -> list[str]:
        """The commands of its processes that are there still."""
        found = []
        for process in psutil.process_iter():
            try:
                if self._mark in process.environ():
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@contextmanager
def started(program: str, home: Path, *options: str) -> Iterator[Bench]:
    """A benchmark that is ended with the block."""
    bench = Bench(program, home, *options)
    yield bench
    bench.end()
