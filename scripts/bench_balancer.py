"""The balancer's own cost: a stub worker asked directly and through the balancer, the two in turn in one run.

Stubs answer 100 kB of silence at once, so all that is measured is the way. Balancer on the first core, stubs and client
together on the second, where there are two. Throughput has a stub for each client: the balancer would wait for a single
one. Beside it stands what the balancer's own CPU time would allow: stubs and client may be what is slow.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
AUDIO_BYTES = 100_000
START_SECONDS = 30.0

Dial = Callable[[], socket.socket]


class Client:
    """One connection kept alive, and as little work a request as Python allows."""

    def __init__(self, dial: Dial, path: str, body: bytes) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._request = head.encode() + b"\r\n\r\n" + body
        self._socket = dial()

    def ask(self) -> float:
        """Send the request, read the whole answer; seconds."""
        started = time.perf_counter()
        self._socket.sendall(self._request)
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


DIRECT, BALANCED = "worker directly", "through the balancer"


@dataclass
class Figures:
    """What one way took."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, with one client."""
    rates: list[float] = field(default_factory=list)
    """Requests a second with several clients, by round."""
    balancer_seconds: list[float] = field(default_factory=list)
    """CPU time of the balancer a request, with several clients, by round."""


def _complete(answer: bytearray) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return answer.endswith(b"\r\n0\r\n\r\n")


def main(
    requests: Annotated[int, typer.Option(min=10, help="Requests of each way, part and round.")] = 500,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the ways take turns within each.")] = 11,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients of the throughput part.")] = 4,
) -> None:
    """Measure and print latency at one client and throughput at several, both ways."""
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as processes:
        folder = Path(name)
        port = _free_port()
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:2] or cores)
        for index in range(concurrency):
            stub = [ROOT / "tests/services/stub_worker.py", "--folder", folder, "--audio-bytes", AUDIO_BYTES]
            processes.enter_context(_running([sys.executable, *map(str, stub), f"--index={index}"], {}))
        environ = {"CHORUS_RUN_DIR": name, "CHORUS_PORT": str(port), "CHORUS_LOG_LEVEL": "warning"}
        pinned = ["taskset", "-c", str(cores[0]), sys.executable, "-m", "balancer"]
        balancer = psutil.Process(processes.enter_context(_running(pinned, environ)).pid)
        _await_ready(f"http://127.0.0.1:{port}/health", concurrency)

        utterance = b'{"id": "%d", "text": "Hello.", "voice": "default", "seed": 1}'
        ways: dict[str, Callable[[int], Client]] = {
            DIRECT: lambda n: Client(lambda: _unix(folder / f"worker-{n}.sock"), "/synthesize", utterance % n),
            BALANCED: lambda _: Client(lambda: _tcp(port), "/tts", b'{"text": "Hello.", "seed": 1}'),
        }
        figures = {way: Figures() for way in ways}
        for number in track(range(rounds), "measuring", console=Console(stderr=True)):
            for way, connect in ways.items():
                found = figures[way]
                client = connect(0)
                found.latencies += [client.ask() for _ in range(requests)]
                before = _cpu_seconds(balancer)
                found.rates.append(_rate([connect(n) for n in range(concurrency)], requests))
                found.balancer_seconds.append((_cpu_seconds(balancer) - before) / requests)
            if number == 0:
                resident = balancer.memory_info().rss
        growth = balancer.memory_info().rss / resident - 1
    _print(figures, concurrency)
    print(f"memory of the balancer: {growth:+.1%} over {2 * requests * (rounds - 1)} requests after the first round")


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _rate(clients: list[Client], requests: int) -> float:
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


def _print(figures: dict[str, Figures], concurrency: int) -> None:
    table = Table(
        "way",
        "p50 ms, 1 client",
        "p99 ms, 1 client",
        "requests/s, median",
        "requests/s for a core of the balancer",
        title=f"{AUDIO_BYTES // 1000} kB answers; requests/s with {concurrency} clients and as many workers",
    )
    medians = {}
    for way, found in figures.items():
        medians[way], p99 = np.percentile(np.array(found.latencies) * 1e3, [50, 99])
        allowed = f"{1 / np.median(found.balancer_seconds):.0f}" if way == BALANCED else ""
        table.add_row(way, f"{medians[way]:.2f}", f"{p99:.2f}", f"{np.median(found.rates):.0f}", allowed)
    console = Console()
    console.print(table)
    console.print(f"added at the median: {medians[BALANCED] - medians[DIRECT]:.2f} ms")


@contextmanager
def _running(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, **environ}, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _await_ready(url: str, workers: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).json()["slots"] == workers:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{url} is not ready after {START_SECONDS} s")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _unix(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def _tcp(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


if __name__ == "__main__":
    typer.run(main)
