"""What N pinned workers gain over one server with one model and one lock, the two by turns in one run.

Both sides speak the same texts with the same seeds, all sent at once: `locked_server.py`, whose model has every core
and whose requests wait for its lock, and Chorus as its users start it, through its balancer. Both stay loaded; while
one works the other waits, and what that takes is measured. Checkpoints have random weights: the same arithmetic as
trained ones, and lengths that are a matter of budgets alone, so that both sides must make the same amount of audio.
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

from scripts.benchmarks.burst import (
    MIN_TOKENS,
    BurstResult,
    UnequalAudioError,
    check_equal_audio,
    send_burst,
    similar_utterances,
)
from scripts.benchmarks.workers.report import Plan, Result, report, setting, workers_of, write_json
from scripts.load.texts import SENTENCES
from scripts.support.checkpoints import Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import fail, report_progress, run_command
from scripts.support.memory import MemoryWatch
from scripts.support.servers import (
    WITHOUT_TIMEOUTS,
    Server,
    ServerError,
    interrupt_on_signals,
    physical_core_count,
    start_chorus,
    start_locked_server,
)
from worker.cards import Runtime
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError
from worker.engines.chatterbox.token_budget import MAX_TOKENS, TOKENS_PER_SECOND, token_budget

DEFAULT_ENGINES = ("turbo", "nano", "chatterbox")
UTTERANCES = 8
FEWER = {"chatterbox": 4, "multilingual": 4, "multilingual-v3": 4}
"""Of those that take a minute for a sentence."""


def main(  # noqa: PLR0917 - each is an option
    engine: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(CHECKPOINTS)}; repeatable.")] = None,
    size: Annotated[Size, typer.Option(help="tiny: two layers of each kind, to try the benchmark itself.")] = Size.FULL,
    utterances: Annotated[
        int | None,
        typer.Option(min=1, max=len(SENTENCES), help=f"Texts of a round; left out: {UTTERANCES}, Original 4."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the sides take turns within each.")] = 2,
    tokens: Annotated[
        int,
        typer.Option(
            min=MIN_TOKENS, max=MAX_TOKENS, help=f"Speech tokens of a text, {TOKENS_PER_SECOND} a second of audio."
        ),
    ] = 98,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; left out: one a physical core.")] = None,
    startup: Annotated[
        bool, typer.Option("--startup", help="Also measure the start, with everything in the page cache.")
    ] = False,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Folder where checkpoints are kept between runs, as SIZE/ENGINE, 2 to 3 GB each; left out: a "
            "temporary one."
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Measure and print what the workers gain, for each engine; tables are Markdown."""
    interrupt_on_signals()
    engines = engine or list(DEFAULT_ENGINES)
    if unknown := [name for name in engines if name not in CHECKPOINTS]:
        raise typer.BadParameter(f"there is no checkpoint of {unknown[0]!r}; there are: {', '.join(CHECKPOINTS)}")
    plan = Plan(size, workers or physical_core_count(), rounds, tokens, startup)
    results = []
    try:
        with checkpoint_home(checkpoints) as home:
            print(setting(plan), end="\n\n", flush=True)
            for name in engines:
                number = utterances or FEWER.get(name, UTTERANCES)
                result = measure(name, ensure_checkpoint(name, size, home), plan, number)
                results.append(result)
                print(report(result, plan), end="\n\n", flush=True)
                if json_file is not None:
                    write_json(json_file, plan, results)
    except (UnequalAudioError, ServerError, CheckpointError) as error:
        fail("bench_workers", error)


def measure(engine: str, weights: Path, plan: Plan, utterances: int) -> Result:
    """Start both sides, let them take turns. Raises ServerError, UnequalAudioError."""
    startup: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as sides:
        folder = Path(name)
        if plan.startup:
            _warm_page_cache(weights)
            if plan.workers > 1:
                report_progress(f"{engine}: starting 1 worker")
                with _start_workers(engine, weights, plan, folder, workers=1) as single:
                    startup["1 worker"] = single.ready_seconds
        report_progress(f"{engine}: starting the locked server")
        locked = sides.enter_context(start_locked_server(engine, weights, size=plan.size, folder=folder))
        report_progress(f"{engine}: starting {workers_of(plan)}")
        workers = sides.enter_context(_start_workers(engine, weights, plan, folder, workers=plan.workers))
        if plan.startup:
            startup |= {"locked": locked.ready_seconds, workers_of(plan): workers.ready_seconds}
        watches = {server.name: MemoryWatch(server) for server in (locked, workers)}
        runs = list(_take_turns(engine, locked, workers, plan, utterances, watches))
        return Result(
            engine=engine,
            tokens=token_budget(similar_utterances(1, plan.tokens, 0)[0].text),
            locked_threads=httpx.get(f"{locked.url}/health", trust_env=False).json()["threads"],
            runs=runs,
            memory={side: watch.measure() for side, watch in watches.items()},
            startup=startup,
        )


def _start_workers(
    engine: str, weights: Path, plan: Plan, folder: Path, *, workers: int
) -> AbstractContextManager[Server]:
    settings = WITHOUT_TIMEOUTS | {"model_dir": weights, "runtime": Runtime.STOCK}
    return start_chorus("workers", engine=engine, workers=workers, folder=folder, settings=settings)


def _take_turns(
    engine: str, locked: Server, workers: Server, plan: Plan, utterances: int, watches: dict[str, MemoryWatch]
) -> Iterator[BurstResult]:
    for number in range(plan.rounds):
        work = similar_utterances(utterances, plan.tokens, number)
        pairs = [(locked, workers), (workers, locked)]
        runs = []
        # Who begins takes turns, too: a machine that grows warm or busy is then unfair to both.
        for active, idle in pairs if number % 2 == 0 else reversed(pairs):
            run = send_burst(active, work, number, watches[active.name], idle)
            report_progress(
                f"{engine}: round {number + 1} of {plan.rounds}, {run.server}: {sum(run.audio_seconds):.1f} s of audio "
                f"in {run.seconds:.1f} s; the other side took {run.idle_cpu:.2f} cores, others {run.others_cpu:.2f}"
            )
            runs.append(run)
        check_equal_audio(runs, work)
        yield from runs


def _warm_page_cache(weights: Path) -> None:
    """Read all that a start reads once, so that no side pays for the other."""
    for file in weights.iterdir():
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass
    libraries = "import chatterbox.tts, chatterbox.tts_turbo, uvicorn"
    subprocess.run([sys.executable, "-W", "ignore", "-c", libraries], check=True)


if __name__ == "__main__":
    run_command(main, "scripts/bench_workers")
