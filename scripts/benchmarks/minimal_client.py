"""An HTTP client with minimal overhead, and the balancer and stub workers whose time it measures."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from balancer.host.processes import free_port, running
from balancer.runtime.repository import REPOSITORY
from balancer.settings.settings import variable
from scripts.support.servers import Server, clean_environment, running_server

AUDIO_BYTES = 100_000
"""Size of each answer's audio."""

Connect = Callable[[], socket.socket]


@dataclass
class Measurements:
    """The measurements of one kind of request."""

    latencies: list[float] = field(default_factory=list)
    """Seconds of each request, with one client."""
    rates: list[float] = field(default_factory=list)
    """Requests per second in each round, with several clients."""
    balancer_seconds: list[float] = field(default_factory=list)
    """CPU seconds of the balancer per request in each round, with several clients."""


class Client:
    """A client that sends POST requests on one persistent connection, with as little work as Python allows."""

    def __init__(self, connect: Connect, path: str, body: bytes | Callable[[], bytes]) -> None:
        """`body` is the body of every request, or makes the body of the next one."""
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ".encode()
        )
        self._body = body
        self._socket = connect()

    def request(self) -> float:
        """Send a request and read the complete answer; returns the seconds. Raises ConnectionError without audio."""
        body = self._body if isinstance(self._body, bytes) else self._body()
        request = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
        started = time.perf_counter()
        self._socket.sendall(request)
        answer = bytearray()
        while not _is_complete(answer):
            received = self._socket.recv(262_144)
            if not received:
                raise ConnectionError(f"the connection was closed within the answer: {bytes(answer[:200])!r}")
            answer += received
        seconds = time.perf_counter() - started
        if not answer.startswith(b"HTTP/1.1 200") or len(answer) < AUDIO_BYTES:
            raise ConnectionError(f"the answer is not audio: {bytes(answer[:400])!r}")
        return seconds


def _is_complete(answer: bytearray) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return answer.endswith(b"\r\n0\r\n\r\n")


def requests_per_second(clients: list[Client], requests: int) -> float:
    """The rate at which concurrent clients, in a thread each, have `requests` answered in all."""
    failures: list[Exception] = []

    def work(client: Client) -> None:
        try:
            for _ in range(requests // len(clients)):
                client.request()
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


def connect_unix(path: Path) -> socket.socket:
    """A connection to a Unix socket."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def connect_tcp(port: int) -> socket.socket:
    """A connection to a port of 127.0.0.1, without Nagle's algorithm."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


@contextmanager
def start_balancer(
    folder: Path, *, stubs: int, core: int, settings: Mapping[str, object], speaking_seconds: float = 0
) -> Iterator[tuple[Server, int]]:
    """Run a balancer on one core with stub workers, until the end of the block. Raises ServerError.

    A stub speaks for `speaking_seconds` and then answers all of its audio.

    All files go to `folder`, where the sockets of the stubs are `run/worker-N.sock`. Gives the balancer and its port.
    """
    run_dir, port = folder / "run", free_port()
    run_dir.mkdir(parents=True, mode=0o700)
    own = {
        "run_dir": run_dir,
        "data_dir": folder / "data",
        "cache_dir": folder / "cache",
        "port": port,
        "log_level": "warning",
    }
    variables = {variable(name): str(value) for name, value in (own | dict(settings)).items()}
    command = ["taskset", "-c", str(core), sys.executable, "-m", "balancer"]
    with ExitStack() as processes:
        for index in range(stubs):
            log = folder / f"stub-{index}.log"
            processes.enter_context(running(_stub_command(run_dir, index, speaking_seconds), log=log, cwd=REPOSITORY))
        server = processes.enter_context(
            running_server(
                "balancer",
                command,
                clean_environment() | variables,
                folder / "balancer.log",
                port,
                lambda health: health["slots"] == stubs,
            )
        )
        yield server, port


def _stub_command(folder: Path, index: int, speaking_seconds: float) -> list[str]:
    """The command of a stub worker that answers AUDIO_BYTES of silence."""
    options = ["--folder", folder, "--audio-bytes", AUDIO_BYTES, "--index", index]
    options += ["--speaking-seconds", speaking_seconds]
    return [sys.executable, "-m", "scripts.support.stub_worker", *map(str, options)]
