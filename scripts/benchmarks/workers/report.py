"""The report of the comparison of workers with a locked server, as Markdown and JSON."""

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
from scripts.support.servers import STOCK_LOCK, STOCK_WORKERS

IDLE_CORES = 0.05
"""Cores in use by the idle server above which the report warns: it would slow the other one down."""


@dataclass(frozen=True)
class WorkersPlan:
    """The options of the comparison, the same for each engine."""

    size: Size
    workers: int
    rounds: int
    tokens: int
    startup: bool


@dataclass(frozen=True)
class WorkersResult:
    """The measurements of one engine."""

    engine: str
    tokens: int
    """Speech tokens of the first text; the others have about as many."""
    locked_threads: int
    """Threads of the locked server, as PyTorch chose them."""
    bursts: list[BurstResult]
    memory: dict[str, list[ProcessMemory]]
    """Memory of the processes after the load, by server."""
    startup: dict[str, float]
    """Seconds until a server was ready; empty if the start was not measured."""

    def of(self, server: str) -> list[BurstResult]:
        """The bursts of one server, by round."""
        return sorted((burst for burst in self.bursts if burst.server == server), key=lambda burst: burst.round)

    @property
    def ratios(self) -> list[float]:
        """The workers' speed over the locked server's, by round."""
        pairs = zip(self.of(STOCK_LOCK), self.of(STOCK_WORKERS), strict=True)
        return [workers.speed / locked.speed for locked, workers in pairs]


def report(result: WorkersResult, plan: WorkersPlan) -> str:
    """The report on one engine as Markdown."""
    parts = [
        f"**{result.engine}**, {plan.size} size: {plural(len(result.bursts[0].answers), 'text')} of "
        f"about {result.tokens} speech tokens, all sent at once, {plural(plan.rounds, 'round')}",
        _speeds(result, plan),
        f"Workers over the locked server: {median_text(result.ratios, 2)}",
        _memories(result),
    ]
    if result.startup:
        times = [[server, f"{seconds:.1f} s"] for server, seconds in result.startup.items()]
        parts.append(table(("start, files in the page cache", "ready after"), times))
    return "\n\n".join([*parts, *_remarks(result)])


def _speeds(result: WorkersResult, plan: WorkersPlan) -> str:
    descriptions = {
        STOCK_LOCK: f"one model, one lock, {plural(result.locked_threads, 'thread')}",
        STOCK_WORKERS: f"{worker_count(plan)}, 1 thread each",
    }
    heading = (
        "server", "audio seconds per second", "audio per round", "first answer", "last answer", "private memory",
        "total memory",
    )  # fmt: skip
    rows = []
    for server, description in descriptions.items():
        bursts = result.of(server)
        rows.append(
            [
                description,
                median_text([burst.speed for burst in bursts], 3),
                f"{sum(bursts[0].audio_seconds):.2f} s",
                *(f"{median(pick(burst.answers) for burst in bursts):.1f} s" for pick in (min, max)),
                *map(mib, total_memory(result.memory[server])),
            ]
        )
    return table(heading, rows)


def _memories(result: WorkersResult) -> str:
    heading = ("server", "process", "private", "private peak", "mapped from files", "resident", "resident peak")
    rows = [[server, *_row(memory)] for server, memories in result.memory.items() for memory in memories]
    return table(heading, rows)


def _remarks(result: WorkersResult) -> Iterator[str]:
    idle = max(burst.idle_cpu for burst in result.bursts)
    others = max(burst.others_cpu for burst in result.bursts)
    yield f"CPU: the idle server used at most {idle:.2f} cores, all other programs {others:.2f}."
    if idle > IDLE_CORES:
        yield "WARNING: the idle server used the machine."
    if others > NOISE_CORES:
        # The workers run at a lower priority than other programs, the locked server does not.
        yield "WARNING: other programs used the machine: the speeds and their ratio are unreliable."


def worker_count(plan: WorkersPlan) -> str:
    """The number of workers, such as `2 workers`."""
    return plural(plan.workers, "worker")


def setting(plan: WorkersPlan) -> str:
    """One line about the machine, the libraries and the workers."""
    return f"{machine('torch', 'chatterbox-tts')}; {worker_count(plan)}, random weights"


def write_json(file: Path, plan: WorkersPlan, results: Sequence[WorkersResult]) -> None:
    """Write all measurements."""
    engines = [asdict(result) | {"ratios": result.ratios} for result in results]
    contents = {"machine": setting(plan), "plan": asdict(plan), "engines": engines}
    file.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _row(memory: ProcessMemory) -> list[str]:
    sizes = (memory.private, memory.private_peak, memory.shared, memory.resident, memory.resident_peak)
    return [memory.process, *map(mib, sizes)]
