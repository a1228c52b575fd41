"""As little work a request as Python allows: clients for measuring what a server itself takes, and stubs before it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from balancer.host import processes
from balancer.settings_groups import REPOSITORY

AUDIO_BYTES = 100_000
START_SECONDS = 30.0
STOP_SECONDS = 60.0

Dial = Callable[[], socket.socket]


@dataclass
class Figures:
    """What one way took."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, with one client."""
    rates: list[float] = field(default_factory=list)
    """Requests a second with several clients, by round."""
    balancer_seconds: list[float] = field(default_factory=list)
    """CPU time of the balancer a request, with several clients, by round."""


class Client:
    """One connection kept alive, and as little work a request as Python allows."""

    def __init__(self, dial: Dial, path: str, body: bytes | Callable[[], bytes]) -> None:
        """`body` is that of every request, or makes that of the next."""
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: ".encode()
        )
        self._body = body
        self._socket = dial()

    def ask(self) -> float:
        """Send the request, read the whole answer; seconds."""
        body = self._body if isinstance(self._body, bytes) else self._body()
        request = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
        started = time.perf_counter()
        self._socket.sendall(request)
        answer = bytearray()
        while not _complete(answer):
            received = self._socket.recv(262_144)
            if not received:
                raise ConnectionError(f"the answer broke off: {bytes(answer[:200])!r}")
            answer += received
        seconds = time.perf_counter() - started
        if not answer.startswith(b"HTTP/1.1 200") or len(answer) < AUDIO_BYTES:
            raise ConnectionError(f"no audio: {bytes(answer[:400])!r}")
        return seconds


def _complete(answer: bytearray) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return answer.endswith(b"\r\n0\r\n\r\n")


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process so far."""
    times = process.cpu_times()
    return times.user + times.system


def rate(clients: list[Client], requests: int) -> float:
    """Requests a second of so many clients at once."""
    failures: list[Exception] = []

    def work(client: Client) -> None:
        try:
            for _ in range(requests // len(clients)):
                client.ask()
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return requests // len(clients) * len(clients) / (time.perf_counter() - started)


@contextmanager
def running(command: list[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, with these variables added to the environment, until the end of the block."""
    env = {**os.environ, **environ}
    with processes.running(command, env=env, cwd=REPOSITORY, grace_seconds=STOP_SECONDS) as process:
        yield process


def await_slots(process: subprocess.Popen[bytes], url: str, slots: int) -> None:
    """Return once the server has so many slots, as `GET /health` at `url` says."""

    def has_slots() -> bool:
        try:
            return bool(httpx.get(url, trust_env=False).json()["slots"] == slots)
        except httpx.TransportError:
            return False

    processes.await_ready(process, has_slots, timeout=START_SECONDS)


def unix(path: Path) -> socket.socket:
    """A connection to a socket of this host."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def tcp(port: int) -> socket.socket:
    """A connection to a port of this host."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def stub(folder: Path, index: int) -> list[str]:
    """The command of a stub worker that answers AUDIO_BYTES of silence at once."""
    options = ["--folder", folder, "--audio-bytes", AUDIO_BYTES, "--index", index]
    return [sys.executable, str(REPOSITORY / "scripts/support/stub_worker.py"), *map(str, options)]


def balancer_on(core: int) -> list[str]:
    """The command of a balancer on that core alone."""
    return ["taskset", "-c", str(core), sys.executable, "-m", "balancer"]
