"""The report of the comparison of inference runtimes, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from scripts.benchmarks.backends.backend import Workload
from scripts.benchmarks.backends.runner import StepTimings
from scripts.support.markdown import machine, plural, table
from scripts.support.noise import NOISE_CORES


@dataclass(frozen=True)
class BackendsPlan:
    """The options of the comparison."""

    engine: str
    size: str
    rows: tuple[int, ...]
    positions: int
    frames: int
    threads: tuple[int, ...]
    rounds: int
    min_seconds: float


@dataclass(frozen=True)
class BackendsResult:
    """All measurements of the comparison."""

    plan: BackendsPlan
    timings: list[StepTimings]
    others_cores: float
    """Cores that all other programs used, at most in any turn."""
    not_measured: list[str]
    """A line about each backend that is not installed."""

    def of(self, workload: Workload) -> list[StepTimings]:
        """The timings of one workload."""
        return [timings for timings in self.timings if timings.workload is workload]


def report(result: BackendsResult) -> str:
    """The report as Markdown."""
    plan = result.plan
    parts = [f"{setting()}\n\n**{plan.engine}**, {plan.size} size, {plural(plan.rounds, 'round')}"]
    if result.of(Workload.DECODE):
        parts.append(
            f"One decode step (layers, head, attention over {plan.positions} cached positions), tokens per second by "
            f"batch size:\n\n{_decode(result)}"
        )
    if result.of(Workload.ESTIMATOR):
        parts.append(f"One step of the flow's estimator for {plan.frames} frames:\n\n{_estimator(result)}")
    return "\n\n".join([*parts, *result.not_measured, *_remarks(result)])


def setting() -> str:
    """One line about the machine and the versions of the runtimes."""
    return machine("torch", "onnxruntime")


def write_json(file: Path, result: BackendsResult) -> None:
    """Write all measurements."""
    contents = {
        "machine": setting(),
        "plan": asdict(result.plan),
        "timings": [asdict(timings) for timings in result.timings],
        "others_cores": result.others_cores,
        "not_measured": result.not_measured,
    }
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _decode(result: BackendsResult) -> str:
    rows = [
        [
            *_name(timings),
            *(_rate(size / median(timings.seconds[size])) for size in result.plan.rows),
            _difference(timings),
        ]
        for timings in result.of(Workload.DECODE)
    ]
    return table(("runtime", "precision", "threads", *map(str, result.plan.rows), "largest difference"), rows)


def _estimator(result: BackendsResult) -> str:
    rows = [
        [*_name(timings), f"{median(timings.seconds[result.plan.frames]):.3f} s", _difference(timings)]
        for timings in result.of(Workload.ESTIMATOR)
    ]
    return table(("runtime", "precision", "threads", "step", "largest difference"), rows)


def _name(timings: StepTimings) -> list[str]:
    return [str(timings.backend), timings.backend.precision, str(timings.threads)]


def _rate(tokens: float) -> str:
    return f"{tokens:.1f}" if tokens < 10 else f"{tokens:.0f}"


def _difference(timings: StepTimings) -> str:
    return f"{max(timings.differences):.1g}"


def _remarks(result: BackendsResult) -> Iterator[str]:
    yield (
        "Differences are from PyTorch's outputs, as a share of their range. All other programs used at most "
        f"{result.others_cores:.2f} cores."
    )
    if result.others_cores > NOISE_CORES:
        yield "WARNING: other programs used the machine: the times are unreliable."
