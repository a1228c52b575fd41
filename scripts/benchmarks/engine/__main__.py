"""Compares the batched engine with upstream's own classes: four ways to serve one model, by turns in one run.

stock-lock is what most people run: one model behind one lock with all cores. stock-workers runs upstream's classes in
pinned workers, batched-fp32 the batched engine in float32, and batched-bf16 and batched-int8 run it in a reduced
precision. On request the batched ones are measured again with shorter prompts, with the mean flow, or with fewer steps
of their flow, which changes the audio. All but stock-lock are Chorus as its users start it, through its balancer. All
synthesize the same texts of 3 to 6 s with the same seeds. The checkpoints have random weights: the arithmetic is that
of trained ones, and the token budget alone determines the length of the audio, which must be the same from all. One
model server is loaded at a time: all would not fit into the memory of many machines, and none can disturb another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scripts.benchmarks.burst import MIN_TOKENS, UnequalAudioError, check_equal_audio
from scripts.benchmarks.engine.baselines import (
    BASELINES,
    LETTERS,
    REDUCED_PRECISIONS,
    Baseline,
    EnginePlan,
    select_baselines,
    supported_precisions,
    with_other_flows,
    with_shorter_prompts,
)
from scripts.benchmarks.engine.report import report, setting, write_json
from scripts.benchmarks.engine.result import EngineResult
from scripts.benchmarks.engine.run import BaselineRun, round_bursts, run_baseline
from scripts.support.checkpoints import CheckpointsOption, Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import JsonOption, fail, report_progress, run_command
from scripts.support.servers import ServerError, interrupt_on_signals, physical_core_count
from worker.cards import MAX_PROMPT_SECONDS, FlowModel
from worker.checkpoints.catalogue import CHECKPOINTS, CheckpointError
from worker.engines.chatterbox.token_budget import MAX_TOKENS
from worker.options import EngineOptions
from worker.precision import Precision, detect_processor, unsupported_reason


def main(  # noqa: PLR0917 - each is an option
    engine: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(CHECKPOINTS)}; repeatable.")] = None,
    size: Annotated[Size, typer.Option(help="tiny: few layers of each kind, to test the benchmark.")] = Size.FULL,
    utterances: Annotated[int, typer.Option(min=1, help="Texts that are sent at once.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which every side has a turn.")] = 2,
    tokens: Annotated[
        str, typer.Option(help="Minimum and maximum speech tokens of a text, 25 per second of audio.")
    ] = "75-150",
    workers: Annotated[int | None, typer.Option(min=1, help="Workers. Default: one per physical core.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads per worker.")] = 1,
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Utterances that a batched worker synthesizes at once. Default: as in Chorus."),
    ] = None,
    sides: Annotated[
        str,
        typer.Option(
            help=f"What to compare, of {', '.join(BASELINES)}. Short forms: a, b and c are the first three, d is the "
            "batched engine in each precision of --precision."
        ),
    ] = ",".join(LETTERS),
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Precision of side d; repeatable. Default: bf16 and int8, if the processor supports them."),
    ] = None,
    prompt_seconds: Annotated[
        int,
        typer.Option(
            min=2,
            max=MAX_PROMPT_SECONDS,
            help="If it is less than the maximum, the batched sides are measured again with prompts of this length.",
        ),
    ] = MAX_PROMPT_SECONDS,
    meanflow: Annotated[
        bool, typer.Option("--meanflow", help="Measure the batched sides again with CHORUS_FLOW=meanflow.")
    ] = False,
    flow_steps: Annotated[
        int | None, typer.Option(help="Measure the batched sides again with so many steps of their flow.")
    ] = None,
    concurrency: Annotated[
        str, typer.Option(help="Numbers of requests sent at once, for the time of the first answer; 1 is added.")
    ] = "1,4,16",
    checkpoints: CheckpointsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Measure the batched engine and upstream's classes, for each engine; prints Markdown."""
    interrupt_on_signals()
    engines = engine or ["turbo"]
    if unknown := [name for name in engines if name not in CHECKPOINTS]:
        raise typer.BadParameter(f"there is no checkpoint of {unknown[0]!r}; there are: {', '.join(CHECKPOINTS)}")
    min_tokens, max_tokens = _parse_range(tokens)
    plan = EnginePlan(
        size=size,
        rounds=rounds,
        utterances=utterances,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        workers=workers or physical_core_count(),
        threads=threads,
        slots=slots,
        concurrency=_parse_numbers(concurrency),
    )
    _check_flows(engines, meanflow=meanflow, steps=flow_steps)
    chosen = _parse_sides(sides, _reduced_precisions(precision))
    other_flows = with_other_flows(chosen, meanflow=meanflow, steps=flow_steps)
    baselines = list(dict.fromkeys([*with_shorter_prompts(chosen, prompt_seconds), *other_flows]))
    results: list[EngineResult] = []
    try:
        with checkpoint_home(checkpoints) as home:
            print(setting(), end="\n\n", flush=True)
            for name in engines:
                save = partial(_save, json_file, plan, results)
                weights = ensure_checkpoint(name, size, home, meanflow=meanflow)
                results.append(measure(name, weights, plan, baselines, save))
                print(report(results[-1], plan), end="\n\n", flush=True)
    except (UnequalAudioError, ServerError, CheckpointError) as error:
        fail("bench_engine", error)


def measure(
    engine: str,
    weights: Path,
    plan: EnginePlan,
    baselines: Sequence[Baseline],
    save: Callable[[EngineResult], None],
) -> EngineResult:
    """Run each baseline once in each round; `save` gets the result so far after each run.

    Raises ServerError, UnequalAudioError.
    """
    runs: list[BaselineRun] = []
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        for number in range(plan.rounds):
            bursts = round_bursts(plan, number)
            # The order alternates, so that a machine that heats up or gets busy favours none.
            for baseline in baselines if number % 2 == 0 else reversed(baselines):
                report_progress(f"{engine}, round {number + 1} of {plan.rounds}: {baseline.name}")
                runs.append(run_baseline(baseline, engine, weights, plan, bursts, number, Path(folder)))
                report_progress(_outcome(runs[-1], plan))
                save(EngineResult(engine, plan.utterances, runs))
            for size, batches in bursts.items():
                for index, utterances in enumerate(batches):
                    check_equal_audio([run.bursts[size][index] for run in runs[-len(baselines) :]], utterances)
    return EngineResult(engine, plan.utterances, runs)


def _save(file: Path | None, plan: EnginePlan, results: Sequence[EngineResult], latest: EngineResult) -> None:
    """Write the results so far: a run of an hour may be interrupted."""
    if file is not None:
        write_json(file, plan, [*results, latest])


def _outcome(run: BaselineRun, plan: EnginePlan) -> str:
    others = max(burst.others_cpu for bursts in run.bursts.values() for burst in bursts)
    return (
        f"{run.description}: {run.speed(plan.utterances):.3f} audio seconds per second; ready after "
        f"{run.ready_seconds:.0f} s; other programs used at most {others:.2f} cores"
    )


def _parse_sides(text: str, reduced: Sequence[Precision]) -> list[Baseline]:
    sides = [side.strip() for side in text.split(",")]
    try:
        baselines = select_baselines(sides, reduced)
    except KeyError as error:
        known = ", ".join((*BASELINES, *LETTERS))
        raise typer.BadParameter(f"--sides: there is no side {error.args[0]!r}; there are: {known}") from None
    if not baselines:
        raise typer.BadParameter(f"--sides: this processor supports none of {', '.join(REDUCED_PRECISIONS)}")
    for baseline in baselines:
        _check_supported(baseline.precision)
    return baselines


def _check_flows(engines: Sequence[str], *, meanflow: bool, steps: int | None) -> None:
    for engine in engines:
        requested = [EngineOptions(engine, Path(), flow_steps=steps)]
        if meanflow:
            requested.append(EngineOptions(engine, Path(), flow=FlowModel.MEANFLOW))
        for options in requested:
            if (reason := options.unsupported_reason()) is not None:
                raise typer.BadParameter(reason)


def _parse_range(tokens: str) -> tuple[int, int]:
    low, _, high = tokens.partition("-")
    if not (low.isdecimal() and high.isdecimal() and MIN_TOKENS <= int(low) <= int(high) <= MAX_TOKENS):
        raise typer.BadParameter(f"--tokens must be two numbers of {MIN_TOKENS} to {MAX_TOKENS}, such as 75-150")
    return int(low), int(high)


def _parse_numbers(concurrency: str) -> tuple[int, ...]:
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in concurrency.split(",")]
    if not all(numbers):
        raise typer.BadParameter("--concurrency must be whole numbers of requests, such as 1,4,16")
    return tuple(sorted({1, *numbers}))


def _reduced_precisions(requested: Sequence[Precision] | None) -> list[Precision]:
    """The precisions of side d: the requested ones, or those that the processor supports."""
    if requested is None:
        return supported_precisions(detect_processor())
    for precision in requested:
        if precision not in REDUCED_PRECISIONS:
            raise typer.BadParameter(
                f"--precision: {precision} is not a reduced precision; there are: {', '.join(REDUCED_PRECISIONS)}"
            )
        _check_supported(precision)
    return list(requested)


def _check_supported(precision: Precision) -> None:
    if (reason := unsupported_reason(precision, detect_processor())) is not None:
        raise typer.BadParameter(reason)


if __name__ == "__main__":
    run_command(main, "scripts/bench_engine")
