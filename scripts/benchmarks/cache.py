"""What an audio cache hit takes: a balancer asked for what it keeps and for what it does not, by turns in one run.

A stub answers 100 kB of silence at once, so a miss costs the way and the keeping, not the speaking: what a hit saves a
real engine comes on top. Files on this host and a Redis of its own are measured with a balancer each. Balancer on the
first core; stub, client and Redis together on the second, where there are two.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from balancer.host.processes import free_port
from scripts.benchmarks.minimal_client import (
    AUDIO_BYTES,
    Client,
    Figures,
    await_slots,
    balancer_on,
    cpu_seconds,
    rate,
    running,
    stub,
    tcp,
)
from scripts.support.console import run_command

HIT, MISS = "hit", "miss"


def main(
    requests: Annotated[int, typer.Option(min=10, help="Requests of each kind, store and round.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the kinds take turns within each.")] = 5,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients of the throughput part.")] = 4,
) -> None:
    """Measure and print, for both stores, what hits and misses take."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:2] or cores)
    table = Table(
        "store",
        "answer",
        "p50 ms, 1 client",
        "p99 ms, 1 client",
        "requests/s, median",
        "requests/s for a core of the balancer",
        title=f"{AUDIO_BYTES // 1000} kB answers; requests/s with {concurrency} clients",
    )
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as processes:
        for store, environ in (("files", {}), ("redis", _redis(processes, Path(name)))):
            with _balancer(Path(name) / store, environ, cores[0]) as (balancer, port):
                figures = _measure(balancer, port, requests, rounds, concurrency)
            for kind, found in figures.items():
                table.add_row(store, kind, *_row(found))
    Console().print(table)


def _redis(processes: ExitStack, folder: Path) -> dict[str, str]:
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--loglevel", "warning"]
    processes.enter_context(running(["redis-server", *options], {}))
    return {"CHORUS_REDIS_URL": f"redis://127.0.0.1:{port}/0"}


@contextmanager
def _balancer(folder: Path, environ: dict[str, str], core: int) -> Iterator[tuple[psutil.Process, int]]:
    """A balancer before a stub; folder and port are its own."""
    run_dir, port = folder / "run", free_port()
    run_dir.mkdir(parents=True, mode=0o700)
    settings = {
        "CHORUS_RUN_DIR": str(run_dir),
        "CHORUS_DATA_DIR": str(folder / "data"),
        "CHORUS_CACHE_DIR": str(folder / "cache"),
        "CHORUS_PORT": str(port),
        "CHORUS_LOG_LEVEL": "warning",
    }
    with running(stub(run_dir, 0), {}), running(balancer_on(core), settings | environ) as process:
        await_slots(process, f"http://127.0.0.1:{port}/health", 1)
        yield psutil.Process(process.pid), port


def _measure(balancer: psutil.Process, port: int, requests: int, rounds: int, concurrency: int) -> dict[str, Figures]:
    def client(seed: Callable[[], int]) -> Client:
        return Client(lambda: tcp(port), "/tts", lambda: b'{"text": "Hello.", "seed": %d}' % seed())

    figures = {MISS: Figures(), HIT: Figures()}
    numbers = count(1)
    kinds: dict[str, Callable[[], int]] = {MISS: lambda: next(numbers), HIT: lambda: 0}
    client(kinds[HIT]).ask()
    for _ in track(range(rounds), "measuring", console=Console(stderr=True)):
        for kind, seed in kinds.items():
            found = figures[kind]
            one = client(seed)
            found.latencies += [one.ask() for _ in range(requests)]
            before = cpu_seconds(balancer)
            found.rates.append(rate([client(seed) for _ in range(concurrency)], requests))
            found.balancer_seconds.append((cpu_seconds(balancer) - before) / requests)
    return figures


def _row(found: Figures) -> tuple[str, str, str, str]:
    p50, p99 = np.percentile(np.array(found.latencies) * 1e3, [50, 99])
    core = 1 / np.median(found.balancer_seconds)
    return f"{p50:.2f}", f"{p99:.2f}", f"{np.median(found.rates):.0f}", f"{core:.0f}"


if __name__ == "__main__":
    run_command(main, "scripts/bench_cache")
