"""Starts servers as processes of their own, waits until they are ready, and ends them with all of their processes."""

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
from balancer.host.unix_sockets import unix_transport
from balancer.runtime.repository import REPOSITORY
from balancer.settings.settings import PREFIX, variable
from scripts.support.checkpoints import Size
from scripts.support.kernel_cache import cache_folder
from worker.contract import WorkerState
from worker.cpu_affinity import THREAD_VARIABLES

START_SECONDS = 600.0
"""A server must be ready within this time: a slow disk may have to read gigabytes of weights."""
STOP_SECONDS = 5
"""Chorus's setting `stop_seconds`: it may be stopped in the middle of its work."""
STATE_SECONDS = 60
"""A worker must report its state within this time; it takes milliseconds unless the machine is overloaded."""

UPSTREAM_LOADABLE = ("turbo", "chatterbox", "multilingual")
"""Engines that upstream's own loaders can load, in full size."""
WITHOUT_TIMEOUTS = {"request_timeout": 24 * 3600, "attempt_seconds": 24 * 3600}
"""Settings of Chorus for loads in which requests queue on purpose, for as long as it takes."""

STOCK_LOCK, STOCK_WORKERS = "stock-lock", "stock-workers"
"""Names of the servers that run upstream's own classes: one model behind one lock, and workers of Chorus."""

SERVING_PHASES = frozenset({"ready", "busy"})
"""Phases, as /health names them, of a worker that speaks, or could."""

_EXIT_SECONDS = STOP_SECONDS + 15.0
_WORKER_EXITED = b"exited: worker-"
"""The beginning of supervisord's log line about a worker that has ended."""
_CHORUS = Path(sys.executable).with_name("chorus")


class ServerError(RuntimeError):
    """A server did not start or failed under load; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    ready_seconds: float
    """From the start of the process until it was ready, warm-up included."""
    sockets: tuple[Path, ...] = ()
    """Sockets of the workers; empty if the server is not Chorus."""

    def processes(self) -> list[psutil.Process]:
        """Its process and all descendants."""
        return process_tree(self.process.pid)

    def cpu_seconds(self) -> float:
        """CPU seconds that its running processes have used so far."""
        seconds = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    def states(self) -> list[WorkerState]:
        """The present states of its workers."""
        return [read_state(socket) for socket in self.sockets]

    def processes_of(self, module: str) -> list[psutil.Process]:
        """Its processes that run `python -m MODULE`, such as `worker` or `balancer`."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it may just have ended
                if process.cmdline()[1:3] == ["-m", module]:
                    found.append(process)
        return found

    def failure(self, reason: str) -> ServerError:
        """The error to raise, with the end of the log."""
        return _failure(f"{self.name}: {reason}", self.log)


def read_state(socket: Path, *, timeout: float = STATE_SECONDS) -> WorkerState:
    """The present state of the worker that listens on a Unix socket."""
    with httpx.Client(transport=unix_transport(socket), timeout=timeout) as client:
        return WorkerState.model_validate_json(client.get("http://worker/state").raise_for_status().content)


def interrupt_on_signals() -> None:
    """Make SIGTERM and SIGHUP interrupt this program as Ctrl-C does, so that it ends what it has started."""
    # A program that a shell starts in the background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: signal.raise_signal(signal.SIGINT))


def physical_core_count() -> int:
    """The number of physical cores that this process may use, at least 1."""
    host = detect_topology()
    return sum(1 for core in host.cores if host.allowed.intersection(core.cpus)) or 1


@contextmanager
def start_locked_server(engine: str, model_dir: Path, *, size: Size, folder: Path) -> Iterator[Server]:
    """Run the locked server, with its log in `folder`; it listens after its warm-up. Raises ServerError."""
    loader = "upstream" if size is Size.FULL and engine in UPSTREAM_LOADABLE else "ours"
    port = free_port()
    options = {"--engine": engine, "--model-dir": model_dir, "--port": port, "--loader": loader}
    command = [sys.executable, "-m", "scripts.benchmarks.locked_server", *option_words(options)]
    log = folder / f"{STOCK_LOCK}.log"
    with running_server(STOCK_LOCK, command, clean_environment(), log, port, lambda report: True) as server:
        yield server


@contextmanager
def start_chorus(
    name: str,
    *,
    engine: str,
    workers: int,
    threads: int = 1,
    folder: Path,
    settings: Mapping[str, object],
    wrapper: Sequence[str] = (),
    api_key: str | None = None,
) -> Iterator[Server]:
    """Run `chorus serve`; all of its workers are ready when the block begins. Raises ServerError.

    `settings` have the names of Chorus's settings, such as `sjf_window`. Log, sockets and data go to `folder` unless
    they say otherwise; compiled kernels are those of CHORUS_CACHE_DIR if that is set. `wrapper` is a program with
    arguments that executes the command, such as `prlimit`. `api_key` is needed if the server has keys: without one it
    does not tell about its workers.
    """
    port = free_port()
    log = folder / f"{name}.log"
    chosen = {
        "run_dir": folder / "run",
        "cache_dir": cache_folder(folder),
        "data_dir": folder / "data",
        "cache_mib": 0,  # every request is to be synthesized
        # Random weights never end a text: each would be taken thrice. Lengths are compared with untrimmed audio.
        "retakes": 0,
        "trim_end": False,
        "stop_seconds": STOP_SECONDS,
    } | dict(settings)

    def ready(report: dict[str, object]) -> bool:
        if _WORKER_EXITED in log.read_bytes():
            raise _NeverReadyError("a worker ends as soon as it is started")
        listed = report.get("workers")
        if not isinstance(listed, list):  # what answers in the balancer's place until that serves
            return False
        for worker in listed:
            if worker["phase"] == "failed":
                raise _NeverReadyError(f"worker {worker['index']} cannot load its model: {worker['reason']}")
        return sum(worker["phase"] in SERVING_PHASES for worker in listed) >= workers

    options = {"--engine": engine, "--workers": workers, "--threads": threads, "--port": port}
    command = [*wrapper, str(_CHORUS), "serve", *option_words(options)]
    variables = {variable(name): str(value) for name, value in chosen.items()}
    sockets = tuple(Path(str(chosen["run_dir"])) / f"worker-{index}.sock" for index in range(workers))
    environment = clean_environment() | variables
    with running_server(name, command, environment, log, port, ready, api_key=api_key) as server:
        yield replace(server, sockets=sockets)


class _NeverReadyError(Exception):
    """The server cannot become ready; the message says why."""


@contextmanager
def running_server(
    name: str,
    command: Sequence[str],
    environment: dict[str, str],
    log: Path,
    port: int,
    ready: Callable[[dict[str, object]], bool],
    *,
    api_key: str | None = None,
) -> Iterator[Server]:
    """Run a server until the end of the block. Raises ServerError.

    It is ready once `ready` is true of its answer to `GET /health`, which is asked with `api_key`.
    """
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with running(command, log=log, env=environment, cwd=REPOSITORY, grace_seconds=_EXIT_SECONDS) as process:
        _await_ready(name, process, url, log, ready, api_key)
        yield Server(name, url, process, log, time.perf_counter() - started)


def _await_ready(
    name: str,
    process: subprocess.Popen[bytes],
    url: str,
    log: Path,
    ready: Callable[[dict[str, object]], bool],
    api_key: str | None,
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(trust_env=False, timeout=START_SECONDS, headers=headers) as client:

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


def _failure(message: str, log: Path) -> ServerError:
    return ServerError(f"{message}\nThe end of its log:\n{log_tail(log) or '(it is empty)'}")


def clean_environment() -> dict[str, str]:
    """The environment of this process, without variables that would change a server or let it use the network."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((PREFIX, "OMP_", "MKL_", "GOMP_", "KMP_")) and name not in THREAD_VARIABLES
    } | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def option_words(options: Mapping[str, object]) -> list[str]:
    """The options and their values as words of a command line."""
    return [str(word) for option in options.items() for word in option]
