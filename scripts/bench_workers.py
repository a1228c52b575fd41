"""What N pinned workers gain over one server with one model and one lock, the two by turns in one run.

Both sides speak the same texts with the same seeds, all sent at once: `locked_server.py`, whose model has every core
and whose requests wait for its lock, and Chorus as its users start it, through its balancer. Both stay loaded; while
one works the other waits, and what that takes is measured. Checkpoints have random weights: the same arithmetic as
trained ones, and lengths that are a matter of budgets alone, so that both sides must make the same amount of audio.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import httpx
import typer
from load.texts import SENTENCES
from rich.console import Console
from sides.load import LEAST_TOKENS, Run, jobs, speak_all
from sides.memory import Watch
from sides.report import Plan, Result, Size, machine, report, workers_of, write_json
from sides.running import Server, SideError, start_chorus, start_locked

from balancer.host import probe
from worker.checkpoints import CHECKPOINTS, CheckpointError, find
from worker.engines.chatterbox.budget import MOST_TOKENS, TOKENS_PER_SECOND, token_budget

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_ENGINES = ("turbo", "nano", "chatterbox")
UTTERANCES = 8
FEWER = {"chatterbox": 4, "multilingual": 4, "multilingual-v3": 4}
"""Of those that take a minute for a sentence."""
UPSTREAM_LOADS = ("turbo", "chatterbox", "multilingual")
"""What upstream's own loaders know, in full size."""
SAME_SECONDS = 0.001
"""Two sides' audio of one text may differ by so much."""

progress = Console(stderr=True)


class BenchError(RuntimeError):
    """There is no result; the message says why."""


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
            min=LEAST_TOKENS, max=MOST_TOKENS, help=f"Speech tokens of a text, {TOKENS_PER_SECOND} a second of audio."
        ),
    ] = 98,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; left out: one a physical core.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Utterances that a worker speaks at once (turbo, nano).")] = 1,
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
    # Whoever ends this program ends it as Ctrl-C does, which a shell has it ignore in the background: with all that it
    # started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: signal.raise_signal(signal.SIGINT))
    engines = engine or list(DEFAULT_ENGINES)
    if unknown := [name for name in engines if name not in CHECKPOINTS]:
        raise typer.BadParameter(f"there is no checkpoint of {unknown[0]!r}; there are: {', '.join(CHECKPOINTS)}")
    plan = Plan(size, workers or _physical_cores(), rounds, tokens, startup, slots)
    results = []
    try:
        with _home(checkpoints) as home:
            print(machine(plan), end="\n\n", flush=True)
            for name in engines:
                number = utterances or FEWER.get(name, UTTERANCES)
                result = measure(name, _checkpoint(name, size, home), plan, number)
                results.append(result)
                print(report(result, plan), end="\n\n", flush=True)
                if json_file is not None:
                    write_json(json_file, plan, results)
    except (BenchError, SideError, CheckpointError) as error:
        progress.print(f"bench_workers: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        raise typer.Exit(1) from error


def measure(engine: str, checkpoint: Path, plan: Plan, utterances: int) -> Result:
    """Start both sides, let them take turns. Raises SideError, BenchError."""
    startup: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name, ExitStack() as sides:
        folder = Path(name)
        if plan.startup:
            _warm_page_cache(checkpoint)
            if plan.workers > 1:
                _tell(f"{engine}: starting 1 worker")
                with _start_workers(engine, checkpoint, plan, folder, workers=1) as single:
                    startup["1 worker"] = single.ready_seconds
        loader = "upstream" if plan.size is Size.FULL and engine in UPSTREAM_LOADS else "ours"
        _tell(f"{engine}: starting the locked server")
        locked = sides.enter_context(start_locked(engine, checkpoint, loader=loader, folder=folder))
        _tell(f"{engine}: starting {workers_of(plan)}")
        workers = sides.enter_context(_start_workers(engine, checkpoint, plan, folder, workers=plan.workers))
        if plan.startup:
            startup |= {"locked": locked.ready_seconds, workers_of(plan): workers.ready_seconds}
        watches = {server.name: Watch(server) for server in (locked, workers)}
        runs = list(_take_turns(engine, locked, workers, plan, utterances, watches))
        return Result(
            engine=engine,
            tokens=token_budget(jobs(1, plan.tokens, 0)[0].text),
            locked_threads=httpx.get(f"{locked.url}/health", trust_env=False).json()["threads"],
            runs=runs,
            memory={side: watch.take() for side, watch in watches.items()},
            startup=startup,
        )


def _start_workers(
    engine: str, checkpoint: Path, plan: Plan, folder: Path, *, workers: int
) -> AbstractContextManager[Server]:
    # Here everything waits in line on purpose, and has to.
    settings = {
        "model_dir": checkpoint,
        "request_timeout": 24 * 3600,
        "attempt_seconds": 24 * 3600,
        "slots": plan.slots,
    }
    return start_chorus("workers", engine=engine, workers=workers, folder=folder, settings=settings)


def _take_turns(
    engine: str, locked: Server, workers: Server, plan: Plan, utterances: int, watches: dict[str, Watch]
) -> Iterator[Run]:
    for number in range(plan.rounds):
        work = jobs(utterances, plan.tokens, number)
        pairs = [(locked, workers), (workers, locked)]
        runs = []
        # Who begins takes turns, too: a machine that grows warm or busy is then unfair to both.
        for active, idle in pairs if number % 2 == 0 else reversed(pairs):
            run = speak_all(active, idle, work, number, watches[active.name])
            _tell(
                f"{engine}: round {number + 1} of {plan.rounds}, {run.side}: {sum(run.audio_seconds):.1f} s of audio "
                f"in {run.seconds:.1f} s; the other side took {run.idle_cpu:.2f} cores, others {run.others_cpu:.2f}"
            )
            runs.append(run)
        _check_same(engine, [job.text for job in work], runs)
        yield from runs


def _check_same(engine: str, texts: Sequence[str], runs: Sequence[Run]) -> None:
    for first, second in pairwise(runs):
        for text, one, other in zip(texts, first.audio_seconds, second.audio_seconds, strict=True):
            if abs(one - other) > SAME_SECONDS:
                raise BenchError(
                    f"{engine}: the sides did not do the same work: of {text!r} {first.side} made {one:.3f} s of "
                    f"audio, {second.side} {other:.3f} s"
                )


# Before


def _physical_cores() -> int:
    """Those that this process may use."""
    host = probe()
    return sum(1 for core in host.cores if host.allowed.intersection(core.cpus)) or 1


@contextmanager
def _home(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="chorus-checkpoints-") as name:
        yield Path(name)


def _checkpoint(engine: str, size: Size, home: Path) -> Path:
    """The folder of a checkpoint, made if it is not there. Raises CheckpointError, BenchError."""
    folder = home / size / engine
    if not folder.exists():
        _tell(f"{engine}: making a checkpoint, {size}")
        # Whole or not at all: an interruption leaves nothing that looks like a checkpoint.
        with tempfile.TemporaryDirectory(prefix=f".{engine}-", dir=_made(folder.parent)) as aside:
            made = Path(aside) / engine
            command = [sys.executable, str(ROOT / "scripts/make_checkpoint.py"), engine, str(made)]
            done = subprocess.run(
                [*command, "--tiny"] if size is Size.TINY else command,
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )
            if done.returncode:
                raise BenchError(f"{engine}: no checkpoint could be made:\n{done.stderr.strip()}")
            made.rename(folder)
    find(CHECKPOINTS[engine], model_dir=folder, revision=None)
    if not (folder / "conds.pt").exists():
        raise BenchError(f"{engine}: the checkpoint in {folder} has no voice of its own (conds.pt)")
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _warm_page_cache(checkpoint: Path) -> None:
    """Read all that a start reads once, so that no side pays for the other."""
    for file in checkpoint.iterdir():
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass
    libraries = "import chatterbox.tts, chatterbox.tts_turbo, uvicorn"
    subprocess.run([sys.executable, "-W", "ignore", "-c", libraries], check=True)


def _tell(message: str) -> None:
    progress.print(message, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
