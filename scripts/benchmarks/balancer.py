"""The cost of the balancer itself: a stub worker is asked directly and through the balancer, by turns in one run.

The stubs answer 100 kB of silence at once, so that only the transport is measured. The balancer runs on the first core,
stubs and client on the second, if there is one. For the throughput each client has a stub of its own: a single one
would limit the balancer. The throughput that the balancer's CPU time would allow is reported, too, because stubs and
client may be the bottleneck.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from scripts.benchmarks.minimal_client import (
    AUDIO_BYTES,
    Client,
    Measurements,
    connect_tcp,
    connect_unix,
    requests_per_second,
    start_balancer,
)
from scripts.support.console import fail, run_command, stderr
from scripts.support.servers import Server, ServerError, interrupt_on_signals

DIRECT, BALANCED = "worker directly", "through the balancer"


def main(
    requests: Annotated[int, typer.Option(min=10, help="Requests per path, part and round.")] = 500,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds, in each of which both paths are measured.")] = 11,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients of the throughput part.")] = 4,
) -> None:
    """Measure the latency with one client and the throughput with several, directly and through the balancer."""
    interrupt_on_signals()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:2] or cores)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="chorus-bench-") as name,
            start_balancer(Path(name), stubs=concurrency, core=cores[0], settings={"cache_mib": 0}) as (server, port),
        ):
            measurements, growth = _measure(server, port, Path(name) / "run", requests, rounds, concurrency)
    except ServerError as error:
        fail("bench_balancer", error)
    _print(measurements, concurrency)
    print(f"memory of the balancer: {growth:+.1%} over {2 * requests * (rounds - 1)} requests after the first round")


def _measure(
    server: Server, port: int, run_dir: Path, requests: int, rounds: int, concurrency: int
) -> tuple[dict[str, Measurements], float]:
    """The measurements by path, and the growth of the balancer's memory after the first round, as a share."""
    utterance = b'{"id": "%d", "text": "Hello.", "voice": "default", "seed": 1}'
    paths: dict[str, Callable[[int], Client]] = {
        DIRECT: lambda n: Client(lambda: connect_unix(run_dir / f"worker-{n}.sock"), "/synthesize", utterance % n),
        BALANCED: lambda _: Client(lambda: connect_tcp(port), "/tts", b'{"text": "Hello.", "seed": 1}'),
    }
    [balancer] = server.processes()
    measurements = {path: Measurements() for path in paths}
    for number in track(range(rounds), "measuring", console=stderr):
        for path, connect in paths.items():
            client = connect(0)
            measurements[path].latencies += [client.request() for _ in range(requests)]
            before = server.cpu_seconds()
            measurements[path].rates.append(requests_per_second([connect(n) for n in range(concurrency)], requests))
            measurements[path].balancer_seconds.append((server.cpu_seconds() - before) / requests)
        if number == 0:
            resident = balancer.memory_info().rss
    return measurements, balancer.memory_info().rss / resident - 1


def _print(measurements: dict[str, Measurements], concurrency: int) -> None:
    table = Table(
        "path",
        "p50 ms, 1 client",
        "p99 ms, 1 client",
        "requests/s, median",
        "requests/s per core of the balancer",
        title=f"{AUDIO_BYTES // 1000} kB answers; requests/s with {concurrency} clients and as many workers",
    )
    medians = {}
    for path, measured in measurements.items():
        medians[path], p99 = np.percentile(np.array(measured.latencies) * 1e3, [50, 99])
        per_core = f"{1 / np.median(measured.balancer_seconds):.0f}" if path == BALANCED else ""
        table.add_row(path, f"{medians[path]:.2f}", f"{p99:.2f}", f"{np.median(measured.rates):.0f}", per_core)
    console = Console()
    console.print(table)
    console.print(f"added at the median: {medians[BALANCED] - medians[DIRECT]:.2f} ms")


if __name__ == "__main__":
    run_command(main, "scripts/bench_balancer")
