"""Starts the real balancer and stub workers as processes of their own, and ends them again.

    with start_stub(run_dir, 0), start_stub(run_dir, 1) as second, start_balancer(run_dir, ready=2) as url:
        httpx.post(f"{url}/tts", json={"text": "Hello."})
        second.process.kill()

A run directory lies best where the fixture `run_dir` puts it: the paths of sockets must be short.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from balancer.settings import PREFIX, variable
from worker.contract import Phase, WorkerState

ROOT = Path(__file__).parents[2]
STUB = ROOT / "scripts" / "support" / "stub_worker.py"

TIMEOUT = 30.0
"""Seconds until something that should have happened did not."""

_PORTS_TRIED = 5
_TAKEN = "address already in use"


@dataclass(frozen=True)
class Stub:
    """A running stub worker."""

    process: subprocess.Popen[bytes]
    path: Path
    """Of its socket."""

    def state(self) -> WorkerState:
        """What it says of itself just now: the balancer's `/health` tells what it said at the last look."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.path)), timeout=TIMEOUT) as client:
            return WorkerState.model_validate_json(client.get("http://worker/state").raise_for_status().content)


@contextmanager
def start_stub(
    run_dir: Path, index: int = 0, *, audio_bytes: int = 100_000, phase: Phase = Phase.READY
) -> Iterator[Stub]:
    """Run `stub_worker.py` as worker `index`; it answers on its socket when the block begins.

    A socket left by an earlier process of that number is taken over. The block's end kills the process.
    """
    arguments = [f"--index={index}", f"--folder={run_dir}", f"--audio-bytes={audio_bytes}", f"--phase={phase}"]
    process = subprocess.Popen([sys.executable, STUB, *arguments], cwd=ROOT, env=environment())
    stub = Stub(process, run_dir / f"worker-{index}.sock")

    def answers() -> bool:
        assert process.poll() is None, f"the stub ended with {process.returncode}"
        # Connected to by hand first: httpx would leave the socket open where nobody listens.
        with socket.socket(socket.AF_UNIX) as client:
            listening = client.connect_ex(str(stub.path)) == 0
        return listening and stub.state().pid == process.pid

    with _ending(process):
        wait_until(answers)
        yield stub


@contextmanager
def start_balancer(run_dir: Path, *, ready: int = 1, **settings: object) -> Iterator[str]:
    """Run `python -m balancer` with these settings (`queue_limit=3`) on a free port; its address, such as http://….

    The block begins when that many workers are ready; with `ready=0`, when the balancer answers at all. Its output goes
    to `balancer.log` in the run directory. The block's end kills it. Nothing is cached unless `cache_mib` says so.
    """
    for _ in range(_PORTS_TRIED):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        own = {"data_dir": run_dir / "data", "cache_dir": run_dir / "cache", "cache_mib": 0}
        chosen = environment(**(own | settings | {"port": port, "run_dir": run_dir}))
        log = run_dir / "balancer.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "balancer"], cwd=ROOT, env=chosen, stdout=output, stderr=subprocess.STDOUT
            )
        with _ending(process):
            wait_until(lambda: process.poll() is not None or _ready(url) >= ready)  # noqa: B023 - called here only
            if process.poll() is None:
                yield url
                return
        assert _TAKEN in log.read_text(), f"the balancer ended with {process.returncode}: {log.read_text()}"
    raise AssertionError(f"no free port in {_PORTS_TRIED} tries")


class Server(NamedTuple):
    """A balancer in front of one stub worker."""

    url: str
    client: httpx.Client
    stub: Stub
    log: Path


@contextmanager
def serve_stub(**settings: object) -> Iterator[Server]:
    """Run a balancer with these settings, and one stub worker, in a run directory of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="chorus-") as folder,
        start_stub(Path(folder)) as stub,
        start_balancer(Path(folder), ready=1, **settings) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client,
    ):
        yield Server(url, client, stub, Path(folder) / "balancer.log")


def environment(**settings: object) -> dict[str, str]:
    """This process's variables, of those of Chorus only the ones for `settings`: `port=5000` is CHORUS_PORT=5000."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    # Never the jobs and keys of whoever runs the tests.
    others[variable("data_dir")] = str(Path(tempfile.gettempdir()) / f"chorus-tests-{os.getuid()}")
    return others | {variable(name): str(value) for name, value in settings.items()}


def free_port() -> int:
    """A port of this host that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], *, timeout: float = TIMEOUT) -> None:
    """Return once `condition()` is true; raise TimeoutError where that takes longer than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {timeout} s")
        time.sleep(0.01)


def _ready(url: str) -> int:
    """How many workers are ready; -1 where the balancer does not answer."""
    try:
        workers = httpx.get(f"{url}/health", timeout=TIMEOUT, trust_env=False).json()["workers"]
    except httpx.TransportError:
        return -1
    return sum(worker["phase"] in ("ready", "busy") for worker in workers)


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()
