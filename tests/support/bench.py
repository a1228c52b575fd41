"""Runs a benchmark as the real program, and finds all processes that it has started."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import typer
from typer.testing import CliRunner, Result

from tests.support.harness import ROOT, environment
from tests.support.shared_folder import kernels_folder

TIMEOUT = 600
"""Seconds after which a test that waits for a benchmark fails."""


class Bench:
    """`python -m scripts.benchmarks.PROGRAM` with these options and environment variables, and the run's kernels."""

    def __init__(self, program: str, *options: str, **variables: str) -> None:
        self._command = [sys.executable, "-m", f"scripts.benchmarks.{program}", *options]
        self._mark = f"BENCH_TEST_{uuid.uuid4().hex}"
        # All descendants inherit the mark. The width keeps messages on one line.
        self._environment = environment(cache_dir=kernels_folder()) | {self._mark: "1", "COLUMNS": "200"} | variables
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Run it with further options."""
        process = subprocess.Popen(
            [*self._command, *options],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """Kill the programs that still run, after a test that failed."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def leftovers(self) -> list[str]:
        """The commands of descendants that still run."""
        found = []
        for process in psutil.process_iter():
            try:
                if self._mark in process.environ():
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@contextmanager
def bench(program: str, *options: str, **variables: str) -> Iterator[Bench]:
    """A benchmark that the end of the block ends."""
    started = Bench(program, *options, **variables)
    try:
        yield started
    finally:
        started.end()


def tiny_options(checkpoints: Path) -> list[str]:
    """Options for tiny checkpoints in this folder."""
    return ["--size", "tiny", "--checkpoints", str(checkpoints)]


def invoke(command: Callable[..., None], *options: str) -> Result:
    """The result of a benchmark's command with options that it refuses before it starts anything, in this process."""
    app = typer.Typer()
    app.command()(command)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return CliRunner().invoke(app, options, env={"COLUMNS": "200"})
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
