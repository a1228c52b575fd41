"""The balancer's own cost: a stub worker asked directly and through the balancer, the two in turn in one run.

Stubs answer 100 kB of silence at once, so all that is measured is the way. Balancer on the first core, stubs and client
together on the second, where there are two. Throughput has a stub for each client: the balancer would wait for a single
one. Beside it stands what the balancer's own CPU time would allow: stubs and client may be what is slow.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
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
    unix,
)
from scripts.support.console import run_command

DIRECT, BALANCED = "worker directly", "through the balancer"


def main(
    requests: Annotated[int, typer.Option(min=10, help="Requests of each way, part and round.")] = 500,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the ways take turns within each.")] = 11,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients of the throughput part.")] = 4,
) -> None:
    """Measure and print latency at one client and throughput at several, both ways."""
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as processes:
        folder = Path(name)
        port = free_port()
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:2] or cores)
        for index in range(concurrency):
            processes.enter_context(running(stub(folder, index), {}))
        environ = {
            "CHORUS_RUN_DIR": name,
            "CHORUS_DATA_DIR": f"{name}/data",
            "CHORUS_CACHE_MIB": "0",
            "CHORUS_PORT": str(port),
            "CHORUS_LOG_LEVEL": "warning",
        }
        process = processes.enter_context(running(balancer_on(cores[0]), environ))
        await_slots(process, f"http://127.0.0.1:{port}/health", concurrency)
        balancer = psutil.Process(process.pid)

        utterance = b'{"id": "%d", "text": "Hello.", "voice": "default", "seed": 1}'
        ways: dict[str, Callable[[int], Client]] = {
            DIRECT: lambda n: Client(lambda: unix(folder / f"worker-{n}.sock"), "/synthesize", utterance % n),
            BALANCED: lambda _: Client(lambda: tcp(port), "/tts", b'{"text": "Hello.", "seed": 1}'),
        }
        figures = {way: Figures() for way in ways}
        for number in track(range(rounds), "measuring", console=Console(stderr=True)):
            for way, connect in ways.items():
                found = figures[way]
                client = connect(0)
                found.latencies += [client.ask() for _ in range(requests)]
                before = cpu_seconds(balancer)
                found.rates.append(rate([connect(n) for n in range(concurrency)], requests))
                found.balancer_seconds.append((cpu_seconds(balancer) - before) / requests)
            if number == 0:
                resident = balancer.memory_info().rss
        growth = balancer.memory_info().rss / resident - 1
    _print(figures, concurrency)
    print(f"memory of the balancer: {growth:+.1%} over {2 * requests * (rounds - 1)} requests after the first round")


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


if __name__ == "__main__":
    run_command(main, "scripts/bench_balancer")
