"""The balancer's own cost: a stub worker asked directly and through the balancer, the two in turn in one run.

The stub answers 100 kB of silence at once, so all that is measured is the way. Balancer on the first core, stub and
client together on the second, where there are two.
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
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
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


def _complete(answer: bytearray) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return answer.endswith(b"\r\n0\r\n\r\n")


def main(
    requests: Annotated[int, typer.Option(min=10, help="Requests of each way and round.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the ways take turns within each.")] = 6,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients of the throughput part.")] = 4,
) -> None:
    """Measure and print latency at one client and throughput at several, both ways."""
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as processes:
        folder = Path(name)
        port = _free_port()
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:2] or cores)
        stub = [ROOT / "tests/services/stub_worker.py", "--folder", folder, "--audio-bytes", AUDIO_BYTES]
        processes.enter_context(_running([sys.executable, *map(str, stub)], {}))
        environ = {"CHORUS_RUN_DIR": name, "CHORUS_PORT": str(port), "CHORUS_LOG_LEVEL": "warning"}
        pinned = ["taskset", "-c", str(cores[0]), sys.executable, "-m", "balancer"]
        processes.enter_context(_running(pinned, environ))
        _await_ready(f"http://127.0.0.1:{port}/ready")

        utterance = b'{"id": "%d", "text": "Hello.", "voice": "default", "seed": 1}'
        ways: dict[str, Callable[[int], Client]] = {
            "worker directly": lambda n: Client(lambda: _unix(folder / "worker-0.sock"), "/synthesize", utterance % n),
            "through the balancer": lambda _: Client(lambda: _tcp(port), "/tts", b'{"text": "Hello.", "seed": 1}'),
        }
        latencies: dict[str, list[float]] = {way: [] for way in ways}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in track(range(rounds), "measuring", console=Console(stderr=True)):
            for way, connect in ways.items():
                client = connect(0)
                latencies[way] += [client.ask() for _ in range(requests)]
                # A worker has one slot: asked directly it serves one client, and refuses the second.
                clients = concurrency if way != "worker directly" else 1
                rates[way].append(_rate([connect(n) for n in range(clients)], requests))
    _print(latencies, rates, concurrency)


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


def _print(latencies: dict[str, list[float]], rates: dict[str, list[float]], concurrency: int) -> None:
    table = Table(
        "way",
        "p50 ms, 1 client",
        "p99 ms, 1 client",
        "requests/s, median",
        title=f"{AUDIO_BYTES // 1000} kB answers; requests/s: balancer with {concurrency} clients, worker with one",
    )
    medians = {}
    for way, seconds in latencies.items():
        medians[way], p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
        table.add_row(way, f"{medians[way]:.2f}", f"{p99:.2f}", f"{np.median(rates[way]):.0f}")
    console = Console()
    console.print(table)
    direct, balanced = medians.values()
    console.print(f"added at the median: {balanced - direct:.2f} ms")


@contextmanager
def _running(command: list[str], environ: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **environ}, cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _await_ready(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
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
