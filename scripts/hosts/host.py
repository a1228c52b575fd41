"""One host at a loopback address of its own: a balancer, and stub workers whose audio tells the text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx

from balancer.host.processes import await_ready, running, wait_until
from balancer.host.unix_sockets import unix_transport
from balancer.runtime.repository import REPOSITORY
from balancer.settings.settings import variable
from scripts.support.servers import clean_environment

WORKERS = 2
SPEAKING_SECONDS = 0.15
AUDIO_BYTES = 24_000
READY_SECONDS = 60.0
STOP_DELAY_SECONDS = 3


class Host:
    """A host that can be killed, restarted, drained and resumed."""

    def __init__(self, address: str, port: int, agent_port: int, redis_url: str, folder: Path) -> None:
        self.address = address
        self.url = f"http://{address}:{port}"
        self._folder = folder
        self._run_dir = folder / address
        self._run_dir.mkdir(mode=0o700)
        settings = {
            "host": address,
            "port": port,
            "agent_port": agent_port,
            "redis_url": redis_url,
            "run_dir": self._run_dir,
            "data_dir": folder / f"{address}-data",
            "cache_dir": folder / f"{address}-cache",
            "cache_mib": 0,
            "normalize": False,
            "trusted_proxies": "127.0.0.0/8",
            "stop_delay_seconds": STOP_DELAY_SECONDS,
        }
        self._environment = clean_environment() | {variable(name): str(value) for name, value in settings.items()}
        self._running = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all of its processes; it is ready when this returns."""
        stub = [sys.executable, "-m", "scripts.support.stub_worker", "--folder", str(self._run_dir), "--audio-of-text"]
        stub += ["--audio-bytes", str(AUDIO_BYTES), "--speaking-seconds", str(SPEAKING_SECONDS)]
        workers = [self._run([*stub, "--index", str(index)], f"worker-{index}") for index in range(WORKERS)]
        balancer = self._run([sys.executable, "-m", "balancer"], "balancer")
        self._processes = [balancer, *workers]
        await_ready(balancer, lambda: self._status("/ready") == 200, timeout=READY_SECONDS)

    def kill(self) -> None:
        """End all of its processes at once, as a host does that loses its power."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        self._running.close()

    def stop(self) -> None:
        """Stop it as its operator does: it says so, finishes what it has, and ends."""
        balancer, *workers = self._processes
        balancer.send_signal(signal.SIGTERM)
        balancer.wait(READY_SECONDS)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        self._running.close()

    def drain(self) -> None:
        """Have it take no new clients."""
        self._control("/drain")

    def resume(self) -> None:
        """Have it take clients again."""
        self._control("/resume")

    def spoken(self) -> int:
        """The utterances that its workers have completed."""
        with self._control_client() as client:
            return sum(worker.get("done", 0) for worker in client.get("/health").json()["workers"])

    def await_idle(self) -> None:
        """Wait until it has nothing under way."""

        def idle() -> bool:
            with self._control_client() as client:
                health = client.get("/health").json()
            return not health["queueDepth"] and health["freeSlots"] == health["slots"]

        wait_until(idle, timeout=READY_SECONDS)

    def _run(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        log = self._folder / f"{self.address}-{name}-{os.urandom(3).hex()}.log"
        return self._running.enter_context(
            running(command, log=log, env=self._environment, cwd=REPOSITORY, grace_seconds=10)
        )

    def _status(self, path: str) -> int:
        try:
            return httpx.get(f"{self.url}{path}", trust_env=False, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def _control(self, path: str) -> None:
        with self._control_client() as client:
            client.post(path).raise_for_status()

    def _control_client(self) -> httpx.Client:
        transport = unix_transport(self._run_dir / "control.sock")
        return httpx.Client(transport=transport, base_url="http://control", timeout=10)
