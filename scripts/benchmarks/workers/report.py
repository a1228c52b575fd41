"""What came of the comparison, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from scripts.benchmarks.burst import BurstResult
from scripts.support.checkpoints import Size
from scripts.support.markdown import machine, median_text, mib, plural, table
from scripts.support.memory import ProcessMemory, total_memory
from scripts.support.noise import NOISE_CORES

IDLE_CORES = 0.05
"""A side that waits and takes more has a share in the other's result."""


@dataclass(frozen=True)
class Plan:
    """What is done with each engine."""

    size: Size
    workers: int
    rounds: int
    tokens: int
    startup: bool


@dataclass(frozen=True)
class Result:
    """What came of one engine."""

    engine: str
    tokens: int
    """Of each text."""
    locked_threads: int
    """As torch chose them."""
    runs: list[BurstResult]
    memory: dict[str, list[ProcessMemory]]
    """By side, after the load."""
    startup: dict[str, float]
    """Seconds until ready, by what was started; empty where it was not asked for."""

    def of(self, side: str) -> list[BurstResult]:
        """The runs of one side, by round."""
        return sorted((run for run in self.runs if run.server == side), key=lambda run: run.round)

    @property
    def ratios(self) -> list[float]:
        """The workers' speed over the locked server's, by round."""
        return [
            theirs.speed / locked.speed for locked, theirs in zip(self.of("locked"), self.of("workers"), strict=True)
        ]


def report(result: Result, plan: Plan) -> str:
    """The result as Markdown."""
    parts = [
        f"**{result.engine}**, {plan.size} size: {plural(len(result.runs[0].answers), 'text')} of "
        f"about {result.tokens} speech tokens, all sent at once, {plural(plan.rounds, 'round')}",
        _speeds(result, plan),
        f"Workers over the locked server: {median_text(result.ratios, 2)}",
        _memories(result),
    ]
    if result.startup:
        times = [[what, f"{seconds:.1f} s"] for what, seconds in result.startup.items()]
        parts.append(table(("started, files in the page cache", "ready after"), times))
    return "\n\n".join([*parts, *_doubts(result)])


def _speeds(result: Result, plan: Plan) -> str:
    names = {
        "locked": f"one model, one lock, {plural(result.locked_threads, 'thread')}",
        "workers": f"{workers_of(plan)}, 1 thread each",
    }
    heading = (
        "side", "audio seconds per second", "audio of a round", "first answer", "last answer", "private memory",
        "in all",
    )  # fmt: skip
    rows = []
    for side, name in names.items():
        runs = result.of(side)
        audio = f"{sum(runs[0].audio_seconds):.2f} s"
        rows.append(
            [
                name,
                median_text([run.speed for run in runs], 3),
                audio,
                *_times(runs),
                *map(mib, total_memory(result.memory[side])),
            ]
        )
    return table(heading, rows)


def _memories(result: Result) -> str:
    heading = ("side", "process", "private", "its peak", "mapped from files", "resident", "its peak")
    rows = [[side, *_row(memory)] for side, memories in result.memory.items() for memory in memories]
    return table(heading, rows)


def _doubts(result: Result) -> Iterator[str]:
    idle = max(run.idle_cpu for run in result.runs)
    others = max(run.others_cpu for run in result.runs)
    yield f"CPU: the side that waited took at most {idle:.2f} cores, everything else on the machine {others:.2f}."
    if idle > IDLE_CORES:
        yield "WARNING: the side that waited did not keep quiet."
    if others > NOISE_CORES:
        # The workers are nicer than other programs, the locked server is not: others slow them the more.
        yield "WARNING: the machine was not quiet: trust neither the speeds nor what the workers gain."


def workers_of(plan: Plan) -> str:
    """How many workers, in words."""
    return plural(plan.workers, "worker")


def setting(plan: Plan) -> str:
    """What all of it ran on, in a line."""
    return f"{machine('torch', 'chatterbox-tts')}; {workers_of(plan)}, random weights"


def write_json(file: Path, plan: Plan, results: Sequence[Result]) -> None:
    """Keep every number, for programs."""
    engines = [asdict(result) | {"ratios": result.ratios} for result in results]
    contents = {"machine": setting(plan), "plan": asdict(plan), "engines": engines}
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _times(runs: Sequence[BurstResult]) -> list[str]:
    return [f"{median(pick(run.answers) for run in runs):.1f} s" for pick in (min, max)]


def _row(memory: ProcessMemory) -> list[str]:
    sizes = (memory.private, memory.private_peak, memory.shared, memory.resident, memory.resident_peak)
    return [memory.process, *map(mib, sizes)]
