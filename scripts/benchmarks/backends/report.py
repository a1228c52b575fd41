"""What came of the comparison of runtimes, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from scripts.benchmarks.backends.backend import DECODE, ESTIMATOR
from scripts.benchmarks.backends.runner import Outcome
from scripts.support.markdown import machine, plural, table
from scripts.support.noise import NOISE_CORES


@dataclass(frozen=True)
class Plan:
    """What was done."""

    engine: str
    size: str
    rows: tuple[int, ...]
    positions: int
    frames: int
    threads: tuple[int, ...]
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """All of it."""

    plan: Plan
    outcomes: list[Outcome]
    others: float
    """The most cores that everything else on the machine took."""
    left_out: list[str]
    """What could not be measured, and what to install."""

    def of(self, work: str) -> list[Outcome]:
        """What came of one kind of work."""
        return [outcome for outcome in self.outcomes if outcome.work == work]


def report(result: Result) -> str:
    """The result as Markdown."""
    plan = result.plan
    parts = [f"{setting()}\n\n**{plan.engine}**, {plan.size} size, {plural(plan.rounds, 'round')}"]
    if result.of(DECODE):
        parts.append(
            f"A whole step of the decode (layers, head, attention over {plan.positions} known positions), tokens a "
            f"second by rows:\n\n{_decode(result)}"
        )
    if result.of(ESTIMATOR):
        parts.append(f"A step of the flow's estimator for {plan.frames} frames:\n\n{_estimator(result)}")
    return "\n\n".join([*parts, *result.left_out, *_doubts(result)])


def setting() -> str:
    """What it ran on."""
    return machine("torch", "onnxruntime")


def write_json(file: Path, result: Result) -> None:
    """Keep every number, for programs."""
    contents = {
        "machine": setting(),
        "plan": asdict(result.plan),
        "outcomes": [asdict(outcome) for outcome in result.outcomes],
        "others": result.others,
        "left_out": result.left_out,
    }
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _decode(result: Result) -> str:
    rows = [
        [*_name(outcome), *(_rate(size / median(outcome.seconds[size])) for size in result.plan.rows), _share(outcome)]
        for outcome in result.of(DECODE)
    ]
    return table(("runtime", "precision", "threads", *map(str, result.plan.rows), "largest difference"), rows)


def _estimator(result: Result) -> str:
    rows = [
        [*_name(outcome), f"{median(outcome.seconds[result.plan.frames]):.3f} s", _share(outcome)]
        for outcome in result.of(ESTIMATOR)
    ]
    return table(("runtime", "precision", "threads", "a step", "largest difference"), rows)


def _name(outcome: Outcome) -> list[str]:
    return [str(outcome.contender), outcome.contender.precision, str(outcome.threads)]


def _rate(tokens: float) -> str:
    return f"{tokens:.1f}" if tokens < 10 else f"{tokens:.0f}"


def _share(outcome: Outcome) -> str:
    """Of the outputs' range."""
    return f"{max(outcome.differences):.1g}"


def _doubts(result: Result) -> Iterator[str]:
    yield (
        "Differences are from torch's plain module, as a share of its outputs' range. Everything else on the machine "
        f"took at most {result.others:.2f} cores."
    )
    if result.others > NOISE_CORES:
        yield "WARNING: the machine was not quiet: trust the figures little."
