"""Short texts under full load, with and without open pages that show Live, by turns in one run.

All slots are in use and as many requests wait as are asked for; each answer is followed by the next request. An open
page asks as `balancer/page/static/views/live.js` does: once in two seconds, for the history and the workers by turns.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Final

import httpx
import typer
from rich.console import Console
from rich.table import Table

from scripts.support.console import fail, report_progress, run_command
from scripts.support.servers import WITHOUT_TIMEOUTS, Server, ServerError, interrupt_on_signals, start_chorus

INTERVAL_SECONDS: Final = 2.0
TEXT = "Hello, this is call number {number}."


def main(
    pages: Annotated[int, typer.Option(min=1, help="Pages that are open.")] = 2,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that wait for a slot.")] = 50,
    workers: Annotated[int, typer.Option(min=1, help="Workers, with a slot each.")] = 2,
    seconds: Annotated[float, typer.Option(min=1, help="Length of a turn.")] = 12.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which both have a turn.")] = 5,
) -> None:
    """Measure by how much open pages slow short texts."""
    interrupt_on_signals()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="chorus-bench-") as name,
            start_chorus(
                "page", engine="hibari", workers=workers, folder=Path(name), settings=WITHOUT_TIMEOUTS
            ) as server,
        ):
            latencies = asyncio.run(_take_turns(server, pages, waiting + workers, seconds, rounds))
    except ServerError as error:
        fail("bench_page", error)
    _report(latencies, f"{workers} workers, {waiting} waiting")


async def _take_turns(
    server: Server, pages: int, clients: int, seconds: float, rounds: int
) -> dict[int, list[list[float]]]:
    """The seconds of each answer, by turns, by the number of open pages."""
    latencies: dict[int, list[list[float]]] = {0: [], pages: []}
    numbers = count()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=server.url, timeout=None, trust_env=False, limits=limits) as client:
        await _load(server, client, clients, seconds / 4, numbers)  # what is done once
        for number in range(rounds):
            # The order alternates, so that a machine that heats up or gets busy favours none.
            for open_pages in latencies if number % 2 == 0 else reversed(list(latencies)):
                async with _open(server, open_pages):
                    turn = await _load(server, client, clients, seconds, numbers)
                latencies[open_pages].append(turn)
                report_progress(
                    f"round {number + 1} of {rounds}, {open_pages} pages: {len(turn)} answers, p95 {_p95(turn):.3f} s"
                )
    return latencies


async def _load(
    server: Server, client: httpx.AsyncClient, clients: int, seconds: float, numbers: Iterator[int]
) -> list[float]:
    """The seconds of each answer that came within the turn, in a closed loop."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def loop() -> None:
        while (started := time.perf_counter()) < end:
            response = await client.post("/tts", json={"text": TEXT.format(number=next(numbers))})
            if response.status_code != httpx.codes.OK:
                raise server.failure(f"HTTP {response.status_code}: {response.text[:500]}")
            if (ended := time.perf_counter()) < end:
                latencies.append(ended - started)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(loop())
    return latencies


@asynccontextmanager
async def _open(server: Server, pages: int) -> AsyncIterator[None]:
    """Pages that are open during the block."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_page(server)) for _ in range(pages)]
        yield
        for task in running:
            task.cancel()


async def _page(server: Server) -> None:
    """One page: its files once, then history and workers by turns."""
    async with httpx.AsyncClient(base_url=server.url, timeout=None, trust_env=False) as client:
        for path in ("/", "/page/main.js", "/page/views/live.js", "/page/vendor/uPlot.iife.min.js", "/capabilities"):
            (await client.get(path)).raise_for_status()
        latest = 0.0
        while True:
            latest = (await client.get("/history", params={"since": latest})).raise_for_status().json()["latest"]
            await asyncio.sleep(INTERVAL_SECONDS)
            await client.get("/health")
            await asyncio.sleep(INTERVAL_SECONDS)


def _p95(latencies: list[float]) -> float:
    return quantiles(latencies, n=20)[-1]


def _report(latencies: dict[int, list[list[float]]], title: str) -> None:
    table = Table("pages", "answers", "median s", "p95 s", title=title)
    for pages, turns in latencies.items():
        every = [seconds for turn in turns for seconds in turn]
        table.add_row(str(pages), str(len(every)), f"{median(every):.3f}", f"{_p95(every):.3f}")
    without, with_pages = latencies.values()
    ratios = [_p95(after) / _p95(before) for before, after in zip(without, with_pages, strict=True)]
    console = Console()
    console.print(table)
    console.print(
        f"p95 with pages / without, by rounds: median {median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}"
    )


if __name__ == "__main__":
    run_command(main, "scripts/bench_page")
