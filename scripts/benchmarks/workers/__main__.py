"""Compares pinned workers with one model behind one lock, by turns in one run. Both run upstream's own classes.

Both synthesize the same texts with the same seeds, all sent at once: the locked server, whose model has all cores and
whose requests wait for its lock, and Chorus as its users start it, through its balancer. Both stay loaded: while one
works the other is idle, and the CPU time of the idle one is measured. The checkpoints have random weights: the
arithmetic is that of trained ones, and the token budget alone determines the length of the audio, which must be the
same from both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Annotated

import httpx
import typer

from balancer.load.texts import SENTENCES
from scripts.benchmarks.burst import (
    MIN_TOKENS,
    BurstResult,
    UnequalAudioError,
    check_equal_audio,
    send_burst,
    similar_utterances,
)
from scripts.benchmarks.workers.report import WorkersPlan, WorkersResult, report, setting, worker_count, write_json
from scripts.support.checkpoints import CheckpointsOption, Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import JsonOption, fail, report_progress, run_command
from scripts.support.memory import MemoryWatch
from scripts.support.servers import (
    STOCK_LOCK,
    STOCK_WORKERS,
    WITHOUT_TIMEOUTS,
    Server,
    ServerError,
    interrupt_on_signals,
    physical_core_count,
    start_chorus,
    start_locked_server,
)
from worker.cards import LANGUAGE_PACKS, Runtime
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError
from worker.engines.chatterbox.token_budget import MAX_TOKENS, TOKENS_PER_SECOND, token_budget

DEFAULT_ENGINES = ("turbo", "nano", "chatterbox")
UTTERANCES = 8
UTTERANCES_OF_SLOW_ENGINES = dict.fromkeys(
    ("chatterbox", "multilingual", "multilingual-v3", *(pack.engine for pack in LANGUAGE_PACKS)), 4
)
"""These engines need about a minute for a sentence."""


def main(  # noqa: PLR0917 - each is an option
    engine: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(CHECKPOINTS)}; repeatable.")] = None,
    size: Annotated[Size, typer.Option(help="tiny: few layers of each kind, to test the benchmark.")] = Size.FULL,
    utterances: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=len(SENTENCES),
            help=f"Texts per round. Default: {UTTERANCES}, and 4 for chatterbox and multilingual.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which both have a turn.")] = 2,
    tokens: Annotated[
        int,
        typer.Option(
            min=MIN_TOKENS,
            max=MAX_TOKENS,
            help=f"Speech tokens per text, {TOKENS_PER_SECOND} per second of audio.",
        ),
    ] = 98,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers. Default: one per physical core.")] = None,
    startup: Annotated[
        bool, typer.Option("--startup", help="Also measure the start, with all files in the page cache.")
    ] = False,
    checkpoints: CheckpointsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Measure speed and memory of pinned workers and of one model behind one lock, for each engine; prints Markdown."""
    interrupt_on_signals()
    engines = engine or list(DEFAULT_ENGINES)
    if unknown := [name for name in engines if name not in CHECKPOINTS]:
        raise typer.BadParameter(f"there is no checkpoint of {unknown[0]!r}; there are: {', '.join(CHECKPOINTS)}")
    plan = WorkersPlan(size, workers or physical_core_count(), rounds, tokens, startup)
    results = []
    try:
        with checkpoint_home(checkpoints) as home:
            print(setting(plan), end="\n\n", flush=True)
            for name in engines:
                count = utterances or UTTERANCES_OF_SLOW_ENGINES.get(name, UTTERANCES)
                result = measure(name, ensure_checkpoint(name, size, home), plan, count)
                results.append(result)
                print(report(result, plan), end="\n\n", flush=True)
                if json_file is not None:
                    write_json(json_file, plan, results)
    except (UnequalAudioError, ServerError, CheckpointError) as error:
        fail("bench_workers", error)


def measure(engine: str, weights: Path, plan: WorkersPlan, utterances: int) -> WorkersResult:
    """Start both servers and measure them by turns. Raises ServerError, UnequalAudioError."""
    startup: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as servers:
        folder = Path(name)
        if plan.startup:
            _fill_page_cache(weights)
            if plan.workers > 1:
                report_progress(f"{engine}: starting 1 worker")
                with _start_workers(engine, weights, folder, workers=1) as single:
                    startup["1 worker"] = single.ready_seconds
        report_progress(f"{engine}: starting the locked server")
        locked = servers.enter_context(start_locked_server(engine, weights, size=plan.size, folder=folder))
        report_progress(f"{engine}: starting {worker_count(plan)}")
        workers = servers.enter_context(_start_workers(engine, weights, folder, workers=plan.workers))
        if plan.startup:
            startup |= {STOCK_LOCK: locked.ready_seconds, worker_count(plan): workers.ready_seconds}
        watches = {server.name: MemoryWatch(server) for server in (locked, workers)}
        bursts = list(_take_turns(engine, locked, workers, plan, utterances, watches))
        return WorkersResult(
            engine=engine,
            tokens=token_budget(similar_utterances(1, plan.tokens, 0)[0].text),
            locked_threads=httpx.get(f"{locked.url}/health", trust_env=False).json()["threads"],
            bursts=bursts,
            memory={server: watch.measure() for server, watch in watches.items()},
            startup=startup,
        )


def _start_workers(engine: str, weights: Path, folder: Path, *, workers: int) -> AbstractContextManager[Server]:
    settings = WITHOUT_TIMEOUTS | {"model_dir": weights, "runtime": Runtime.STOCK}
    return start_chorus(STOCK_WORKERS, engine=engine, workers=workers, folder=folder, settings=settings)


def _take_turns(
    engine: str,
    locked: Server,
    workers: Server,
    plan: WorkersPlan,
    utterance_count: int,
    watches: dict[str, MemoryWatch],
) -> Iterator[BurstResult]:
    for number in range(plan.rounds):
        utterances = similar_utterances(utterance_count, plan.tokens, number)
        pairs = [(locked, workers), (workers, locked)]
        bursts = []
        # The order alternates, so that a machine that heats up or gets busy favours none.
        for active, idle in pairs if number % 2 == 0 else reversed(pairs):
            burst = send_burst(active, utterances, number, watches[active.name], idle)
            report_progress(
                f"{engine}: round {number + 1} of {plan.rounds}, {burst.server}: {sum(burst.audio_seconds):.1f} s of "
                f"audio in {burst.seconds:.1f} s; the idle server used {burst.idle_cpu:.2f} cores, other programs "
                f"{burst.others_cpu:.2f}"
            )
            bursts.append(burst)
        check_equal_audio(bursts, utterances)
        yield from bursts


def _fill_page_cache(weights: Path) -> None:
    """Read all files that a start reads, so that the first server does not pay for the others."""
    for file in weights.iterdir():
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass
    libraries = "import scripts.benchmarks.locked_server, worker.engines.chatterbox.stock"
    subprocess.run([sys.executable, "-W", "ignore", "-c", libraries], check=True)


if __name__ == "__main__":
    run_command(main, "scripts/bench_workers")
