"""What the batched engine gains over upstream's own classes: four ways to serve one model, by turns in one run.

(a) is what most people run, one model behind one lock with every core (`locked_server.py`); (b) upstream's classes in
pinned workers; (c) the batched engine in float32; (d) the batched engine in a reduced precision; and, if asked, (c) and
(d) with shorter prompts, which is another sound. All but (a) are Chorus as its users start it, through its balancer.
All speak the same texts with the same seeds, of 3 to 6 s of audio. Checkpoints have random weights: the same arithmetic
as trained ones, and lengths that are a matter of budgets alone, so that all sides must make the same amount of audio.
One side is loaded at a time: four would not fit many a machine, and none can disturb another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scripts.benchmarks.burst import MIN_TOKENS, UnequalAudioError, check_equal_audio
from scripts.benchmarks.engine.baselines import LETTERS, Plan, Side, sides
from scripts.benchmarks.engine.report import report, setting, write_json
from scripts.benchmarks.engine.result import Result
from scripts.benchmarks.engine.run import Trial, attempt, work_of
from scripts.support.checkpoints import Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import fail, report_progress, run_command
from scripts.support.servers import ServerError, interrupt_on_signals, physical_core_count
from worker.cards import MAX_PROMPT_SECONDS
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError
from worker.engines.chatterbox.token_budget import MAX_TOKENS
from worker.precision import Precision, detect_processor, unsupported_reason

REDUCED = (Precision.BF16, Precision.INT8)


def main(  # noqa: PLR0917 - each is an option
    engine: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(CHECKPOINTS)}; repeatable.")] = None,
    size: Annotated[Size, typer.Option(help="tiny: two layers of each kind, to try the benchmark itself.")] = Size.FULL,
    utterances: Annotated[int, typer.Option(min=1, help="Texts that are sent at once.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the sides take turns within each.")] = 2,
    tokens: Annotated[str, typer.Option(help="Least and most speech tokens of a text, 25 a second.")] = "75-150",
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; left out: one a physical core.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each worker.")] = 1,
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Utterances that a batched worker speaks at once; left out: as Chorus chooses."),
    ] = None,
    which: Annotated[str, typer.Option("--sides", help="Those of a, b, c and d that are measured.")] = ",".join(
        LETTERS
    ),
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Of (d); repeatable; left out: those that this processor has instructions for."),
    ] = None,
    prompt_seconds: Annotated[
        int,
        typer.Option(
            min=2,
            max=MAX_PROMPT_SECONDS,
            help="Below the most, c and d are measured again with prompts so short.",
        ),
    ] = MAX_PROMPT_SECONDS,
    concurrency: Annotated[str, typer.Option(help="Numbers of requests at once; 1 always is one.")] = "1,4,16",
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder where checkpoints are kept, as SIZE/ENGINE, 2 to 3 GB each; left out: temporary."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Measure and print what the batched engine gains; tables are Markdown."""
    interrupt_on_signals()
    engines = engine or ["turbo"]
    if unknown := [name for name in engines if name not in CHECKPOINTS]:
        raise typer.BadParameter(f"there is no checkpoint of {unknown[0]!r}; there are: {', '.join(CHECKPOINTS)}")
    least, most = _range(tokens)
    plan = Plan(
        size=size,
        rounds=rounds,
        utterances=utterances,
        least_tokens=least,
        most_tokens=most,
        workers=workers or physical_core_count(),
        threads=threads,
        slots=slots,
        concurrency=_numbers(concurrency),
    )
    chosen = list(sides(_letters(which), _precisions(precision), prompt_seconds))
    results: list[Result] = []
    try:
        with checkpoint_home(checkpoints) as home:
            print(setting(), end="\n\n", flush=True)
            for name in engines:
                keep = partial(_keep, json_file, plan, results)
                results.append(measure(name, ensure_checkpoint(name, size, home), plan, chosen, keep))
                print(report(results[-1], plan), end="\n\n", flush=True)
    except (UnequalAudioError, ServerError, CheckpointError) as error:
        fail("bench_engine", error)


def measure(engine: str, weights: Path, plan: Plan, chosen: Sequence[Side], keep: Callable[[Result], None]) -> Result:
    """Give each side its turn in each round; `keep` gets what there is after each.

    Raises ServerError, UnequalAudioError.
    """
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        for number in range(plan.rounds):
            work = work_of(plan, number)
            # Who begins takes turns, too: a machine that grows warm or busy is then unfair to none.
            for side in chosen if number % 2 == 0 else reversed(chosen):
                report_progress(f"{engine}, round {number + 1} of {plan.rounds}: {side.name}")
                trials.append(attempt(side, engine, weights, plan, work, number, Path(folder)))
                report_progress(_outcome(trials[-1], plan))
                keep(Result(engine, plan.utterances, trials))
            turns = trials[-len(chosen) :]
            for together, batches in work.items():
                for index, jobs in enumerate(batches):
                    check_equal_audio([trial.runs[together][index] for trial in turns], jobs)
    return Result(engine, plan.utterances, trials)


def _keep(file: Path | None, plan: Plan, results: Sequence[Result], latest: Result) -> None:
    """A run of an hour may be cut short."""
    if file is not None:
        write_json(file, plan, [*results, latest])


def _outcome(trial: Trial, plan: Plan) -> str:
    others = max(run.others_cpu for runs in trial.runs.values() for run in runs)
    return (
        f"{trial.described}: {trial.speed(plan.utterances):.3f} audio seconds a second; ready after "
        f"{trial.ready_seconds:.0f} s; everything else took at most {others:.2f} cores"
    )


def _letters(which: str) -> list[str]:
    letters = [letter.strip() for letter in which.split(",")]
    if unknown := [letter for letter in letters if letter not in LETTERS]:
        raise typer.BadParameter(f"--sides: there is no side {unknown[0]!r}; there are: {', '.join(LETTERS)}")
    return sorted(set(letters))


def _range(tokens: str) -> tuple[int, int]:
    least, _, most = tokens.partition("-")
    if not (least.isdecimal() and most.isdecimal() and MIN_TOKENS <= int(least) <= int(most) <= MAX_TOKENS):
        raise typer.BadParameter(f"--tokens must be two numbers of {MIN_TOKENS} to {MAX_TOKENS}, such as 75-150")
    return int(least), int(most)


def _numbers(concurrency: str) -> tuple[int, ...]:
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in concurrency.split(",")]
    if not all(numbers):
        raise typer.BadParameter("--concurrency must be whole numbers of requests, such as 1,4,16")
    return tuple(sorted({1, *numbers}))


def _precisions(asked: Sequence[Precision] | None) -> list[Precision]:
    found = detect_processor()
    if asked is None:
        return [precision for precision in REDUCED if found.supports(precision)]
    for precision in asked:
        if precision not in REDUCED:
            raise typer.BadParameter(f"--precision: (c) is measured in {precision}; there are: {', '.join(REDUCED)}")
        if (refused := unsupported_reason(precision, found)) is not None:
            raise typer.BadParameter(refused)
    return list(dict.fromkeys(asked))


if __name__ == "__main__":
    run_command(main, "scripts/bench_engine")
