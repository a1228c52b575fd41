from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.services.harness import ROOT, environment, free_port, wait_until

CHORUS = Path(sys.executable).with_name("chorus")
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Chorus:
    """A whole server: supervisord, balancer and workers, started as its users start it."""

    url: str
    run_dir: Path
    process: subprocess.Popen[bytes]
    log: Path

    def health(self) -> dict[str, Any]:
        report: dict[str, Any] = httpx.get(f"{self.url}/health").json()
        return report

    def workers(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self.health()["workers"]
        return workers

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def supervisorctl(self, *command: str) -> None:
        supervisorctl = [sys.executable, "-m", "supervisor.supervisorctl"]
        config = ROOT / "supervisord.conf"
        subprocess.run([*supervisorctl, "-c", config, *command], check=True, env=environment(run_dir=self.run_dir))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def await_ready(self, workers: int) -> None:
        wait_until(lambda: [worker["phase"] for worker in self.workers()].count("ready") == workers)


@contextmanager
def start_chorus(*options: str, **settings: object) -> Iterator[Chorus]:
    """`chorus serve` on a free port with these options and environment settings, ready when the block begins."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        log = Path(folder) / "log"
        run_dir = Path(folder) / "run"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [CHORUS, "serve", "--port", str(port), *options],
                cwd=ROOT,
                env=environment(run_dir=run_dir, **settings),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        chorus = Chorus(f"http://127.0.0.1:{port}", run_dir, process, log)
        try:
            wait_until(lambda: process.poll() is not None or b"Chorus is ready" in log.read_bytes())
            assert process.poll() is None, log.read_text()
            yield chorus
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
                process.wait(STOP_SECONDS)


@pytest.fixture(scope="module")
def chorus() -> Iterator[Chorus]:
    """A server with two workers, shared by the module's tests."""
    with start_chorus("--workers", "2") as running:
        yield running
