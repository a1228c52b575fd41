"""Compares inference runtimes: a decode step of T3 and a step of S3Gen's estimator, by turns in one run.

The steps are plain modules, with the KV cache as input and output, exported to ONNX once. PyTorch, ONNX Runtime and
OpenVINO compute them, and so do the batched engine's own layers. Each backend is a process of its own, confined to the
same cores and started anew for each turn: all at once would need 20 GB. The outputs are compared with PyTorch's.
The weights are random; the arithmetic is that of trained weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from balancer.host.topology import detect_topology
from scripts.benchmarks.backends.backend import EXTRA, Backend, InferenceRuntime, Workload, supported_backends
from scripts.benchmarks.backends.report import BackendsPlan, BackendsResult, report, write_json
from scripts.benchmarks.backends.runner import BackendError, StepTask, StepTimings, export_steps, measure_in_turns
from scripts.support.checkpoints import CheckpointsOption, Size, checkpoint_home, ensure_checkpoint
from scripts.support.console import JsonOption, fail, report_progress, run_command
from scripts.support.servers import interrupt_on_signals
from worker.checkpoints.catalogue import CheckpointError
from worker.precision import Precision, detect_processor

ENGINES = ("turbo", "nano")


def main(  # noqa: PLR0917 - each is an option
    engine: Annotated[str, typer.Option(help=f"One of {', '.join(ENGINES)}.")] = "turbo",
    size: Annotated[Size, typer.Option(help="tiny: few layers of each kind, to test the benchmark.")] = Size.FULL,
    work: Annotated[str, typer.Option(help="Steps to measure.")] = ",".join(Workload),
    rows: Annotated[str, typer.Option(help="Batch sizes of the decode step.")] = "1,2,4,8,16,32",
    positions: Annotated[int, typer.Option(min=2, max=2000, help="Cached positions of each row.")] = 500,
    frames: Annotated[int, typer.Option(min=1, help="Mel frames of the estimator's step.")] = 700,
    threads: Annotated[str, typer.Option(help="Numbers of threads, each on a core of its own.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which every backend has a turn.")] = 2,
    seconds: Annotated[float, typer.Option(min=0, help="Minimum time for the steps of one size.")] = 1.0,
    checkpoints: CheckpointsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Measure the steps in each runtime and precision; prints Markdown."""
    interrupt_on_signals()
    if engine not in ENGINES:
        raise typer.BadParameter(f"--engine: {engine!r} is not one of {', '.join(ENGINES)}")
    workloads = _parse_workloads(work)
    counts = _parse_numbers("--threads", threads)
    cpus = _one_cpu_per_core(max(counts))
    plan = BackendsPlan(engine, size, _parse_numbers("--rows", rows), positions, frames, counts, rounds, seconds)
    try:
        with checkpoint_home(checkpoints) as home:
            for result in measure(plan, ensure_checkpoint(engine, size, home), workloads, cpus):
                # After every turn: a long run may be interrupted.
                if json_file is not None:
                    write_json(json_file, result)
    except (BackendError, CheckpointError) as error:
        fail("bench_decode", error)
    print(report(result))


def measure(
    plan: BackendsPlan, weights: Path, workloads: Sequence[Workload], cpus: Sequence[int]
) -> Iterator[BackendsResult]:
    """Export the steps and measure all backends; yields the result so far after each turn. Raises BackendError."""
    backends = [
        backend
        for backend in supported_backends(detect_processor())
        if any(backend.runs(workload) for workload in workloads)
    ]
    installed = [backend for backend in backends if not backend.missing_modules]
    not_measured = [
        f"Not measured: {backend} {backend.precision}, because {', '.join(backend.missing_modules)} is not installed; "
        f"the extra `{EXTRA}` of this package installs it."
        for backend in backends
        if backend.missing_modules
    ]
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as name:
        folder = Path(name)
        report_progress("exporting the steps")
        export_steps(
            engine=plan.engine,
            weights=weights,
            folder=folder,
            rows=max(plan.rows),
            positions=plan.positions,
            int8=Backend(InferenceRuntime.ONNXRUNTIME, Precision.INT8) in installed,
        )
        all_sizes = {Workload.DECODE: plan.rows, Workload.ESTIMATOR: (plan.frames,)}
        sizes = {workload: all_sizes[workload] for workload in workloads}
        task = StepTask(sizes, plan.engine, weights, folder, plan.rounds, plan.min_seconds)
        earlier: list[StepTimings] = []
        others_cores = 0.0
        for count in plan.threads:
            timings: list[StepTimings] = []
            for timings, cores in measure_in_turns(task, installed, cpus[:count]):
                others_cores = max(others_cores, cores)
                yield BackendsResult(plan, [*earlier, *timings], others_cores, not_measured)
            earlier += timings


def _one_cpu_per_core(number: int) -> list[int]:
    """A CPU of each of `number` physical cores that this process may use."""
    host = detect_topology()
    cpus = [min(allowed) for core in host.cores if (allowed := host.allowed.intersection(core.cpus))]
    if number > len(cpus):
        raise typer.BadParameter(f"--threads: {number} threads need {number} cores, and there are {len(cpus)}")
    return cpus[:number]


def _parse_workloads(text: str) -> list[Workload]:
    names = [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in list(Workload)]:
        raise typer.BadParameter(f"--work: there is no step {unknown[0]!r}; there are: {', '.join(Workload)}")
    return [Workload(name) for name in names]


def _parse_numbers(option: str, text: str) -> tuple[int, ...]:
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(numbers):
        raise typer.BadParameter(f"{option} must be whole numbers, such as 1,2,4")
    return tuple(sorted(set(numbers)))


if __name__ == "__main__":
    run_command(main, "scripts/bench_decode")
