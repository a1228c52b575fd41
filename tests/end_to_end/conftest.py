from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import psutil
import pytest

from balancer.host.processes import ProcessEndedError, await_ready, free_port, running
from scripts.support.servers import read_state
from tests.support.harness import ROOT, TIMEOUT, environment, wait_until
from tests.support.shared_folder import with_kernels
from tests.support.tiny_models import TinyCheckpoint
from worker.contract import WorkerState

Answer = TypeVar("Answer")

CHORUS = Path(sys.executable).with_name("chorus")
STOP_SECONDS = 90.0  # balancer and workers may take 30 s each to finish their utterances
SEED = 7
"""Of what is synthesized without another one."""
MODEL_TIMEOUT = 240.0
"""Seconds that an engine with large libraries may need to start or to answer on a busy machine."""

_PORTS_TRIED = 5
_TAKEN = "cannot listen on"


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
        """The present states of the workers; `/health` has those of the last poll."""
        return [read_state(path, timeout=TIMEOUT) for path in sorted(self.run_dir.glob("worker-*.sock"))]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the metric's values that have these labels."""
        found = [f'{label}="{value}"' for label, value in labels.items()]
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name and all(label in line for label in found)
        )

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
    begin: str = "Chorus is ready",
    **settings: object,
) -> Iterator[Chorus]:
    """Run `chorus serve` on a free port with these options and settings; the block begins once its log says `begin`.

    `host_name` is the host of its URL, if its options make it listen elsewhere. `variables` are further environment
    variables. The audio cache is off unless `cache_mib` is set.
    """
    for _ in range(_PORTS_TRIED):
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
            log = Path(folder) / "log"
            run_dir = Path(folder) / "run"
            own = {"data_dir": Path(folder) / "data", "cache_mib": 0}
            env = environment(**(own | settings | {"run_dir": run_dir})) | (variables or {})

            def has_begun(log: Path = log) -> bool:
                return begin in log.read_text()

            with running([CHORUS, "serve", "--port", str(port), *options], log=log, cwd=ROOT, env=env) as process:
                try:
                    await_ready(process, has_begun, timeout=timeout)
                except ProcessEndedError as error:
                    if _TAKEN not in log.read_text():
                        raise AssertionError(log.read_text()) from error
                    continue
                try:
                    yield Chorus(f"http://{host_name}:{port}", run_dir, process, log)
                finally:
                    # A server that does not stop by itself within its time fails the test.
                    process.terminate()
                    process.wait(STOP_SECONDS)
                return
    raise AssertionError(f"no free port in {_PORTS_TRIED} tries")


@pytest.fixture(scope="module")
def chorus() -> Iterator[Chorus]:
    """A server with two workers, shared by the tests of a module."""
    with start_chorus("--workers", "2") as chorus:
        yield chorus


ONE_WORKER = ("--workers", "1", "--threads", "1")
"""Options of a server in whose tests it does not matter how many workers it has: the audio is that of any number of
them with as many threads each."""


@pytest.fixture(scope="module")
def one_worker_chorus() -> Iterator[Chorus]:
    """A server with one worker, shared by the tests of a module."""
    with start_chorus(*ONE_WORKER) as chorus:
        yield chorus


class Home(NamedTuple):
    """Folders of a server, outside of the repository and of the user's home."""

    voices: Path
    cache: Path

    def settings(self) -> dict[str, Any]:
        return {"voices_dir": self.voices, "cache_dir": self.cache}

    def conditionals(self) -> set[Path]:
        """Files of cached voice conditionals."""
        return set(self.cache.rglob("*.safetensors"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Folders for the tests of a module, with the voice `default`."""
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
    """Run `chorus serve` with an engine that has a checkpoint, in `model_dir` or in the hub's cache."""
    chosen = ["--engine", engine, "--workers", str(workers), *options]
    if model_dir is not None:
        chosen += ["--model-dir", str(model_dir)]
    with start_chorus(*chosen, variables=variables, timeout=MODEL_TIMEOUT, **home.settings(), **settings) as chorus:
        chorus.await_ready(workers, timeout=MODEL_TIMEOUT)
        yield chorus


@pytest.fixture(scope="module")
def turbo(tiny_checkpoint: TinyCheckpoint, home: Home) -> Iterator[Chorus]:
    """A server with two workers that run a tiny Turbo with upstream's own classes, shared by the tests of a module."""
    with start_model("turbo", home, model_dir=tiny_checkpoint("turbo"), workers=2, runtime="stock") as chorus:
        yield chorus


def link_files(folder: Path, files: Iterable[Path]) -> Path:
    """Create `folder` with links to these files."""
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


def synthesize(chorus: Chorus, text: str = "Hi.", **fields: object) -> bytes:
    """The audio of a text."""
    return post_tts(chorus, text, **fields).raise_for_status().content


def post_tts(chorus: Chorus, text: str, **fields: object) -> httpx.Response:
    return httpx.post(f"{chorus.url}/tts", json={"text": text, "seed": SEED} | fields, timeout=MODEL_TIMEOUT)


def kill_all(chorus: Chorus) -> None:
    """End every process of a server, all at once, the supervisor first: nobody says goodbye."""
    processes = [psutil.Process(chorus.process.pid), *chorus.children()]
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # one without its supervisor ends by itself
            process.kill()
    chorus.process.wait()
    psutil.wait_procs(processes[1:], timeout=10)


def run_concurrently(*calls: Callable[[], Answer]) -> list[Answer]:
    """The results of the calls, each made in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]
