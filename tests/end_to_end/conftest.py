from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import psutil
import pytest

from balancer.host.processes import ProcessEndedError, await_ready, free_port, running
from tests.support.harness import ROOT, TIMEOUT, environment, wait_until
from tests.support.real_worker import Worker
from tests.support.shared_folder import with_kernels
from tests.support.tiny_models import TinyCheckpoint
from worker.contract import WorkerState

Answer = TypeVar("Answer")

CHORUS = Path(sys.executable).with_name("chorus")
STOP_SECONDS = 90.0  # the balancer has 30 s for what is in flight, the workers 30 s more
MODEL_TIMEOUT = 240.0
"""Seconds that a start, or an answer, of an engine with big libraries may take on a machine with other work."""


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

    def states(self) -> list[WorkerState]:
        """What the workers say of themselves just now: `/health` tells what they said at the last look."""
        return [Worker(self.process, path).state() for path in sorted(self.run_dir.glob("worker-*.sock"))]

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def supervisorctl(self, *command: str) -> None:
        supervisorctl = [sys.executable, "-m", "supervisor.supervisorctl"]
        config = ROOT / "supervisord.conf"
        subprocess.run([*supervisorctl, "-c", config, *command], check=True, env=environment(run_dir=self.run_dir))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def await_ready(self, workers: int, *, timeout: float = TIMEOUT) -> None:
        wait_until(lambda: [worker["phase"] for worker in self.workers()].count("ready") == workers, timeout=timeout)


@contextmanager
def start_chorus(
    *options: str,
    variables: dict[str, str] | None = None,
    timeout: float = TIMEOUT,
    host_name: str = "127.0.0.1",
    **settings: object,
) -> Iterator[Chorus]:
    """`chorus serve` on a free port with these options and environment settings, ready when the block begins.

    `host_name` is where it is asked, if options say that it listens elsewhere. `variables` are those of the environment
    that are no settings of ours. Nothing is cached unless `cache_mib` says so.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        log = Path(folder) / "log"
        run_dir = Path(folder) / "run"
        own = {"data_dir": Path(folder) / "data", "cache_mib": 0}
        env = environment(**(own | settings | {"run_dir": run_dir})) | (variables or {})
        with running([CHORUS, "serve", "--port", str(port), *options], log=log, cwd=ROOT, env=env) as process:
            try:
                await_ready(process, lambda: b"Chorus is ready" in log.read_bytes(), timeout=timeout)
                yield Chorus(f"http://{host_name}:{port}", run_dir, process, log)
            except ProcessEndedError as error:
                raise AssertionError(log.read_text()) from error
            finally:
                # A server that does not stop by itself within its time fails the test.
                process.terminate()
                process.wait(STOP_SECONDS)


@pytest.fixture(scope="module")
def chorus() -> Iterator[Chorus]:
    """A server with two workers, shared by the module's tests."""
    with start_chorus("--workers", "2") as chorus:
        yield chorus


class Home(NamedTuple):
    """Folders for a server that writes nothing into the repository or the user's own home."""

    voices: Path
    cache: Path

    def settings(self) -> dict[str, Any]:
        return {"voices_dir": self.voices, "cache_dir": self.cache}

    def conditionals(self) -> set[Path]:
        """What is kept of voices."""
        return set(self.cache.rglob("*.safetensors"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Folders of the module's own; the voice `default` is there."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "voices" / "default", folder / "voices" / "default")
    return Home(folder / "voices", with_kernels(folder / "cache"))


@contextmanager
def start_model(
    engine: str,
    home: Home,
    *options: str,
    model_dir: Path | None = None,
    workers: int = 1,
    variables: dict[str, str] | None = None,
    **settings: Any,
) -> Iterator[Chorus]:
    """`chorus serve` with an engine that has a checkpoint, in `model_dir` or where it finds it."""
    chosen = ["--engine", engine, "--workers", str(workers), *options]
    if model_dir is not None:
        chosen += ["--model-dir", str(model_dir)]
    with start_chorus(*chosen, variables=variables, timeout=MODEL_TIMEOUT, **home.settings(), **settings) as chorus:
        chorus.await_ready(workers, timeout=MODEL_TIMEOUT)
        yield chorus


@pytest.fixture(scope="module")
def turbo(tiny_checkpoint: TinyCheckpoint, home: Home) -> Iterator[Chorus]:
    """A server with two workers that run a tiny Turbo through upstream's own classes, shared by the module's tests."""
    with start_model("turbo", home, model_dir=tiny_checkpoint("turbo"), workers=2, runtime="stock") as chorus:
        yield chorus


def link_files(folder: Path, files: Iterable[Path]) -> Path:
    """Make `folder`, with links to these files."""
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


def synthesize(chorus: Chorus, text: str = "Hi.", **fields: object) -> bytes:
    """The audio of a text."""
    return post_tts(chorus, text, **fields).raise_for_status().content


def post_tts(chorus: Chorus, text: str, **fields: object) -> httpx.Response:
    return httpx.post(f"{chorus.url}/tts", json={"text": text, "seed": 7} | fields, timeout=MODEL_TIMEOUT)


def run_concurrently(*calls: Callable[[], Answer]) -> list[Answer]:
    """What the calls give, each made from a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]
