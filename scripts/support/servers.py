"""Starts the sides of a comparison as processes of their own, waits until they are ready, and ends all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from balancer.host.processes import ProcessEndedError, await_ready, free_port, log_tail, process_tree, running
from balancer.host.topology import detect_topology
from balancer.settings import PREFIX, variable
from balancer.settings_groups import REPOSITORY
from scripts.support.checkpoints import Size
from worker.contract import WorkerState
from worker.cpu_affinity import THREAD_VARIABLES

START_SECONDS = 600.0
"""Until a side must be ready: gigabytes of weights may come from a slow disk."""
STOP_SECONDS = 5
"""Grace for a side that is ended in the middle of its work."""
ANSWER_SECONDS = 60
"""Until a worker has told its state, which it does within milliseconds unless the machine is overcrowded."""

UPSTREAM_LOADS = ("turbo", "chatterbox", "multilingual")
"""What upstream's own loaders know, in full size."""
UNHURRIED = {"request_timeout": 24 * 3600, "attempt_seconds": 24 * 3600}
"""Settings for loads in which everything waits in line on purpose, and has to."""

_EXIT_SECONDS = STOP_SECONDS + 15.0
_RESTARTS = b"exited: worker-"
"""What supervisord logs."""
_CHORUS = Path(sys.executable).with_name("chorus")
_LOCKED_SERVER = REPOSITORY / "scripts/benchmarks/locked_server.py"


class SideError(RuntimeError):
    """A side did not start, or did not do its work; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Server:
    """One side, running."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    ready_seconds: float
    """From its start until it was ready to speak."""
    sockets: tuple[Path, ...] = ()
    """Of its workers, where it is Chorus."""

    def processes(self) -> list[psutil.Process]:
        """Its own process and all below."""
        return process_tree(self.process.pid)

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        seconds = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    def states(self) -> list[WorkerState]:
        """What its workers say of themselves just now."""
        found = []
        for socket_path in self.sockets:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path)), timeout=ANSWER_SECONDS) as client:
                state = client.get("http://worker/state").raise_for_status()
            found.append(WorkerState.model_validate_json(state.content))
        return found

    def modules(self, name: str) -> list[psutil.Process]:
        """Its processes that run `python -m name`: `worker` or `balancer`."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it may just have ended
                if process.cmdline()[1:3] == ["-m", name]:
                    found.append(process)
        return found

    def failure(self, what: str) -> SideError:
        """What went wrong, with the end of the log."""
        return _failure(f"{self.name}: {what}", self.log)


def heed_signals() -> None:
    """Have whoever ends this program end it as Ctrl-C does: in order, with all that it has started."""
    # A shell has Ctrl-C ignored by what it starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: signal.raise_signal(signal.SIGINT))


def physical_cores() -> int:
    """Those that this process may use."""
    host = detect_topology()
    return sum(1 for core in host.cores if host.allowed.intersection(core.cpus)) or 1


@contextmanager
def start_locked(engine: str, model_dir: Path, *, size: Size, folder: Path) -> Iterator[Server]:
    """The server with one model and one lock; it listens once it has spoken. `folder` is for its log."""
    loader = "upstream" if size is Size.FULL and engine in UPSTREAM_LOADS else "ours"
    port = free_port()
    options = {"--engine": engine, "--model-dir": model_dir, "--port": port, "--loader": loader}
    command = [sys.executable, str(_LOCKED_SERVER), *flat(options)]
    with running_server("locked", command, environment(), folder / "locked.log", port, lambda report: True) as server:
        yield server


@contextmanager
def start_chorus(
    name: str, *, engine: str, workers: int, threads: int = 1, folder: Path, settings: Mapping[str, object]
) -> Iterator[Server]:
    """Chorus with so many workers, as its users start it; all of them are ready when the block begins.

    `settings` by their names, such as `sjf_window`; log, sockets and cache go to `folder` unless they say otherwise.
    Raises SideError.
    """
    port = free_port()
    log = folder / f"{name}.log"
    chosen = {
        "run_dir": folder / "run",
        "cache_dir": folder / "cache",
        "data_dir": folder / "data",
        "cache_mib": 0,  # what is measured is to be spoken
        "stop_seconds": STOP_SECONDS,
    } | dict(settings)

    def ready(report: dict[str, object]) -> bool:
        if _RESTARTS in log.read_bytes():
            raise _NeverReadyError("a worker ends as soon as it is started")
        listed = report["workers"]
        assert isinstance(listed, list)  # noqa: S101 - /health's own shape, told to mypy
        for worker in listed:
            if worker["phase"] == "failed":
                raise _NeverReadyError(f"worker {worker['index']} cannot load its model: {worker['reason']}")
        return sum(worker["phase"] in {"ready", "busy"} for worker in listed) >= workers

    options = {"--engine": engine, "--workers": workers, "--threads": threads, "--port": port}
    command = [str(_CHORUS), "serve", *flat(options)]
    variables = {variable(name): str(value) for name, value in chosen.items()}
    sockets = tuple(Path(str(chosen["run_dir"])) / f"worker-{index}.sock" for index in range(workers))
    with running_server(name, command, environment() | variables, log, port, ready) as server:
        yield replace(server, sockets=sockets)


class _NeverReadyError(Exception):
    """Waiting longer is of no use; the message says why."""


@contextmanager
def running_server(
    name: str,
    command: Sequence[str],
    environment: dict[str, str],
    log: Path,
    port: int,
    ready: Callable[[dict[str, object]], bool],
) -> Iterator[Server]:
    """Run a server until the end of the block; `ready` judges its answer to `GET /health`. Raises ServerError."""
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with running(command, log=log, env=environment, cwd=REPOSITORY, grace_seconds=_EXIT_SECONDS) as process:
        _await_ready(name, process, url, log, ready)
        yield Server(name, url, process, log, time.perf_counter() - started)


def _await_ready(
    name: str, process: subprocess.Popen[bytes], url: str, log: Path, ready: Callable[[dict[str, object]], bool]
) -> None:
    with httpx.Client(trust_env=False, timeout=START_SECONDS) as client:

        def is_ready() -> bool:
            try:
                return ready(client.get(f"{url}/health").json())
            except httpx.TransportError:
                return False

        try:
            await_ready(process, is_ready, timeout=START_SECONDS)
        except ProcessEndedError as error:
            raise _failure(f"{name} did not start: it ended with {error.returncode}", log) from error
        except _NeverReadyError as error:
            raise _failure(f"{name} did not start: {error}", log) from error
        except TimeoutError as error:
            raise _failure(f"{name} did not start: it was not ready after {START_SECONDS:g} s", log) from error


def _failure(message: str, log: Path) -> SideError:
    return SideError(f"{message}\nThe end of its log:\n{log_tail(log) or '(it is empty)'}")


def environment() -> dict[str, str]:
    """The variables of this process without those that would change either side, or take it to the network."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((PREFIX, "OMP_", "MKL_", "GOMP_", "KMP_")) and name not in THREAD_VARIABLES
    } | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def flat(options: Mapping[str, object]) -> list[str]:
    """Options as the words of a command line."""
    return [str(word) for option in options.items() for word in option]
