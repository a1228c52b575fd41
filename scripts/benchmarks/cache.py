"""Hits and misses of the audio cache, by turns in one run, with the cache in files and in Redis.

A stub worker answers 100 kB of silence at once, so that a miss costs the transport and the storing, but no synthesis:
the time of a real engine comes on top. Each store has a balancer of its own; Redis is started for the run. The balancer
runs on the first core; stub, client and Redis run on the second, if there is one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import count
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
    requests_per_second,
    start_balancer,
)
from scripts.support.console import fail, run_command, stderr
from scripts.support.redis_server import start_redis
from scripts.support.servers import Server, ServerError, interrupt_on_signals

HIT, MISS = "hit", "miss"


def main(
    requests: Annotated[int, typer.Option(min=10, help="Requests per kind, store and round.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which hits and misses are measured.")] = 5,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients of the throughput part.")] = 4,
) -> None:
    """Measure the latency and throughput of cache hits and misses, with files and with Redis."""
    interrupt_on_signals()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:2] or cores)
    table = Table(
        "store",
        "answer",
        "p50 ms, 1 client",
        "p99 ms, 1 client",
        "requests/s, median",
        "requests/s per core of the balancer",
        title=f"{AUDIO_BYTES // 1000} kB answers; requests/s with {concurrency} clients",
    )
    try:
        with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, start_redis(Path(name)) as redis:
            for store, settings in (("files", {}), ("redis", {"redis_url": redis.url})):
                folder = Path(name) / store
                with start_balancer(folder, stubs=1, core=cores[0], settings=settings) as (server, port):
                    measurements = _measure(server, port, requests, rounds, concurrency)
                for kind, measured in measurements.items():
                    table.add_row(store, kind, *_row(measured))
    except ServerError as error:
        fail("bench_cache", error)
    Console().print(table)


def _measure(server: Server, port: int, requests: int, rounds: int, concurrency: int) -> dict[str, Measurements]:
    """The measurements of hits and misses."""

    def client(seed: Callable[[], int]) -> Client:
        return Client(lambda: connect_tcp(port), "/tts", lambda: b'{"text": "Hello.", "seed": %d}' % seed())

    measurements = {MISS: Measurements(), HIT: Measurements()}
    numbers = count(1)
    seeds: dict[str, Callable[[], int]] = {MISS: lambda: next(numbers), HIT: lambda: 0}
    client(seeds[HIT]).request()
    for _ in track(range(rounds), "measuring", console=stderr):
        for kind, seed in seeds.items():
            single = client(seed)
            measurements[kind].latencies += [single.request() for _ in range(requests)]
            before = server.cpu_seconds()
            measurements[kind].rates.append(requests_per_second([client(seed) for _ in range(concurrency)], requests))
            measurements[kind].balancer_seconds.append((server.cpu_seconds() - before) / requests)
    return measurements


def _row(measured: Measurements) -> tuple[str, str, str, str]:
    p50, p99 = np.percentile(np.array(measured.latencies) * 1e3, [50, 99])
    per_core = 1 / np.median(measured.balancer_seconds)
    return f"{p50:.2f}", f"{p99:.2f}", f"{np.median(measured.rates):.0f}", f"{per_core:.0f}"


if __name__ == "__main__":
    run_command(main, "scripts/bench_cache")
