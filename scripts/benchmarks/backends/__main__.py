"""Which runtime computes a decode step fastest, and a step of the sound's estimator: several by turns in one run.

The step is written as a plain module, with keys and values passed in and out, exported to ONNX once, and taken by
torch, ONNX Runtime and OpenVINO; and by what the batched engine runs. Each contender is a process of its own, confined
to the same cores, started anew for each of its turns: all at once would take 20 GB. What it computes is held against
torch. Weights are random, the arithmetic is that of trained ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from balancer.host.topology import detect_topology
from scripts.benchmarks.backends.backend import DECODE, ESTIMATOR, EXTRA, Contender, Runtime, contenders
from scripts.benchmarks.backends.report import Plan, Result, report, write_json
from scripts.benchmarks.backends.runner import FieldError, Outcome, Task, compare, prepare
from scripts.support.checkpoints import Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import fail, report_progress, run_command
from scripts.support.servers import interrupt_on_signals
from worker.checkpoints.catalogue import CheckpointError
from worker.precision import Precision, detect_processor

ENGINES = ("turbo", "nano")
WORKS = (DECODE, ESTIMATOR)


def main(  # noqa: PLR0917 - each is an option
    engine: Annotated[str, typer.Option(help=f"One of {', '.join(ENGINES)}.")] = "turbo",
    size: Annotated[Size, typer.Option(help="tiny: two layers of each kind, to try the benchmark itself.")] = Size.FULL,
    work: Annotated[str, typer.Option(help="Which steps.")] = ",".join(WORKS),
    rows: Annotated[str, typer.Option(help="Rows of a decode step.")] = "1,2,4,8,16,32",
    positions: Annotated[int, typer.Option(min=2, max=2000, help="Positions that each row knows already.")] = 500,
    frames: Annotated[int, typer.Option(min=1, help="Mel frames of an estimator's step.")] = 700,
    threads: Annotated[str, typer.Option(help="Numbers of threads, each with a core of its own.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the contenders take turns within each.")] = 2,
    seconds: Annotated[float, typer.Option(min=0, help="Least time for steps of one size.")] = 1.0,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder where checkpoints are kept, as SIZE/ENGINE, 2 to 3 GB each; left out: temporary."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Measure and print what each runtime does; tables are Markdown."""
    interrupt_on_signals()
    if engine not in ENGINES:
        raise typer.BadParameter(f"--engine: there is no {engine!r} here; there are: {', '.join(ENGINES)}")
    works = [part.strip() for part in work.split(",")]
    if unknown := [part for part in works if part not in WORKS]:
        raise typer.BadParameter(f"--work: there is no step {unknown[0]!r}; there are: {', '.join(WORKS)}")
    counts = _numbers("--threads", threads)
    cpus = _cpus(max(counts))
    plan = Plan(engine, size, _numbers("--rows", rows), positions, frames, counts, rounds, seconds)
    try:
        with checkpoint_home(checkpoints) as home:
            for result in measure(plan, ensure_checkpoint(engine, size, home), works, cpus):
                # A long run may be cut short.
                if json_file is not None:
                    write_json(json_file, result)
    except (FieldError, CheckpointError) as error:
        fail("bench_decode", error)
    print(report(result))


def measure(plan: Plan, weights: Path, works: Sequence[str], cpus: Sequence[int]) -> Iterator[Result]:
    """Export the steps and have all contenders take them; what there is after each turn. Raises FieldError."""
    wanted = [contender for contender in contenders(detect_processor()) if any(contender.does(work) for work in works)]
    able = [contender for contender in wanted if not contender.missing]
    left_out = [
        f"Not measured: {contender} {contender.precision}, for lack of {', '.join(contender.missing)}; the extra "
        f"`{EXTRA}` of this package brings it."
        for contender in wanted
        if contender.missing
    ]
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name:
        folder = Path(name)
        report_progress("exporting the steps")
        prepare(
            engine=plan.engine,
            weights=weights,
            folder=folder,
            rows=max(plan.rows),
            positions=plan.positions,
            eight_bits=Contender(Runtime.ONNXRUNTIME, Precision.INT8) in able,
        )
        sizes = {DECODE: plan.rows, ESTIMATOR: (plan.frames,)}
        task = Task({work: sizes[work] for work in works}, plan.engine, weights, folder, plan.rounds, plan.seconds)
        before: list[Outcome] = []
        most = 0.0
        for count in plan.threads:
            found: list[Outcome] = []
            for found, others in compare(task, able, cpus[:count], report_progress):
                most = max(most, others)
                yield Result(plan, [*before, *found], most, left_out)
            before += found


def _cpus(number: int) -> list[int]:
    """A CPU of each of so many physical cores that this process may use."""
    host = detect_topology()
    cpus = [min(own) for core in host.cores if (own := host.allowed.intersection(core.cpus))]
    if number > len(cpus):
        raise typer.BadParameter(f"--threads: {number} threads want as many cores, and there are {len(cpus)}")
    return cpus[:number]


def _numbers(option: str, text: str) -> tuple[int, ...]:
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(numbers):
        raise typer.BadParameter(f"{option} must be whole numbers, such as 1,2,4")
    return tuple(sorted(set(numbers)))


if __name__ == "__main__":
    run_command(main, "scripts/bench_decode")
