"""Starts the real balancer and stub workers as processes of their own, and ends them.

    with start_stub(run_dir, 0), start_stub(run_dir, 1) as second, start_balancer(run_dir, ready=2) as url:
        httpx.post(f"{url}/tts", json={"text": "Hello."})
        second.process.kill()

The run directory should be that of the fixture `run_dir`: the paths of sockets must be short.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from balancer.host import processes
from balancer.host.processes import ProcessEndedError, await_ready, free_port, running
from balancer.settings.settings import PREFIX, variable
from scripts.support.servers import read_state
from worker.contract import Phase, Utterance, WorkerState

ROOT = Path(__file__).parents[2]

TIMEOUT = 30.0
"""Seconds after which a test that waits for an event fails."""
POLL_INTERVAL_SECONDS = 0.01

_PORTS_TRIED = 5
_TAKEN = "address already in use"


@dataclass(frozen=True)
class Stub:
    """A running stub worker."""

    process: subprocess.Popen[bytes]
    path: Path
    """Path of its socket."""

    def state(self) -> WorkerState:
        """Its present state; the balancer's `/health` has the state of its last poll."""
        return read_state(self.path, timeout=TIMEOUT)

    def last_utterance(self) -> Utterance:
        """The newest utterance that it has received, of at least one."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.path)), timeout=TIMEOUT) as client:
            return Utterance.model_validate_json(client.get("http://worker/last-utterance").raise_for_status().content)


@contextmanager
def start_stub(
    run_dir: Path,
    index: int = 0,
    *,
    audio_bytes: int = 100_000,
    phase: Phase = Phase.READY,
    speaking_seconds: float = 0.0,
) -> Iterator[Stub]:
    """Run a stub worker as worker `index`; it answers on its socket when the block begins.

    It takes over a socket that an earlier process of that index has left. The end of the block kills it.
    """
    arguments = [f"--index={index}", f"--folder={run_dir}", f"--audio-bytes={audio_bytes}", f"--phase={phase}"]
    arguments.append(f"--speaking-seconds={speaking_seconds}")
    with running(
        [sys.executable, "-m", "scripts.support.stub_worker", *arguments], cwd=ROOT, env=environment()
    ) as process:
        stub = Stub(process, run_dir / f"worker-{index}.sock")
        await_worker(process, stub.path)
        yield stub


@contextmanager
def start_balancer(run_dir: Path, *, ready: int = 1, **settings: object) -> Iterator[str]:
    """Run `python -m balancer` with these settings (`queue_limit=3`) on a free port; gives its URL.

    The block begins when `ready` workers are ready; with `ready=0`, when the balancer answers at all. The output goes
    to `balancer.log` in the run directory. The end of the block kills the balancer. The audio cache is off unless
    `cache_mib` is set.
    """
    for _ in range(_PORTS_TRIED):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        own = {"data_dir": run_dir / "data", "cache_dir": run_dir / "cache", "cache_mib": 0}
        env = environment(**(own | settings | {"port": port, "run_dir": run_dir}))
        log = run_dir / "balancer.log"

        def is_ready(url: str = url) -> bool:
            return _ready_workers(url, run_dir) >= ready

        with running([sys.executable, "-m", "balancer"], log=log, cwd=ROOT, env=env) as process:
            try:
                await_ready(process, is_ready, timeout=TIMEOUT, poll_interval=POLL_INTERVAL_SECONDS)
            except ProcessEndedError:
                assert _TAKEN in log.read_text(), log.read_text()
                continue
            yield url
            return
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
    """The environment of this process, with CHORUS_ variables for `settings` alone: `port=5000` is CHORUS_PORT=5000."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    # Not the jobs and keys of the user who runs the tests.
    others[variable("data_dir")] = str(Path(tempfile.gettempdir()) / f"chorus-tests-{os.getuid()}")
    # The random weights of tiny checkpoints never end a text: each would be taken thrice.
    others[variable("retakes")] = "0"
    others[variable("trim_end")] = "false"
    return others | {variable(name): str(value) for name, value in settings.items()}


def await_banner(server: Server) -> None:
    """Wait until the log has the last line that a balancer writes at its start."""
    wait_until(lambda: "Ctrl-C stops the server.\n\n" in server.log.read_text())


def wait_until(condition: Callable[[], bool], *, timeout: float = TIMEOUT) -> None:
    """Return once `condition()` is true. Raises TimeoutError after `timeout` seconds."""
    processes.wait_until(condition, timeout=timeout, poll_interval=POLL_INTERVAL_SECONDS)


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds; other tasks go on meanwhile. Raises TimeoutError after TIMEOUT."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(POLL_INTERVAL_SECONDS)


def await_worker(process: subprocess.Popen[bytes], path: Path) -> None:
    """Wait until this process, and no earlier one, serves a worker at `path`."""

    def answers() -> bool:
        try:
            return listens(path) and read_state(path, timeout=TIMEOUT).pid == process.pid
        except httpx.TransportError:  # an earlier process at this socket ends at this moment
            return False

    await_ready(process, answers, timeout=TIMEOUT, poll_interval=POLL_INTERVAL_SECONDS)


def listens(path: Path) -> bool:
    """Whether a server accepts connections at a Unix socket."""
    # By hand: httpx would leave its socket open where nothing listens.
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _ready_workers(url: str, run_dir: Path) -> int:
    """The number of ready workers; -1 if the balancer does not answer."""
    control = run_dir / "control.sock"
    if not listens(control):
        return -1
    try:
        httpx.get(f"{url}/ready", timeout=TIMEOUT, trust_env=False)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(control)), timeout=TIMEOUT) as client:
            workers = client.get("http://control/health").json()["workers"]
    except httpx.TransportError:
        return -1
    return sum(worker["phase"] in ("ready", "busy") for worker in workers)
