"""A side's turn: it is started, speaks texts alone, a few at once and all at once, and is ended again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.benchmarks.burst import BurstResult, BurstUtterance, send_burst, spread_utterances
from scripts.benchmarks.engine.baselines import Plan, Side
from scripts.support.memory import MemoryWatch, ProcessMemory
from scripts.support.servers import Server

ALONE = 3
"""Texts that are spoken one after the other where one request at a time is measured."""


@dataclass(frozen=True)
class Trial:
    """What came of one side in one round."""

    side: str
    round: int
    described: str
    threads: int
    """Of each model."""
    models: int
    ready_seconds: float
    """From its start until it was ready to speak, its warm-up included."""
    runs: dict[int, list[BurstResult]]
    """By how many requests were sent at once; one after the other where there are several."""
    stages: dict[str, float]
    """Seconds that its models spent in each stage of the work while all texts were spoken at once, all added up."""
    memory: list[ProcessMemory]

    def speed(self, together: int) -> float:
        """Audio seconds a second with so many requests at once."""
        runs = self.runs[together]
        return sum(sum(run.audio_seconds) for run in runs) / sum(run.seconds for run in runs)

    def first_answers(self, together: int) -> list[float]:
        """Seconds until the first of so many requests sent at once was answered whole, by run."""
        return [min(run.answers) for run in self.runs[together]]


def work_of(plan: Plan, round_number: int) -> dict[int, list[list[BurstUtterance]]]:
    """A round's texts, the same for every side: by how many are sent at once, what is sent one after the other."""
    found = {}
    for together in sorted({*plan.concurrency, plan.utterances}):
        times = ALONE if together == 1 else 1
        jobs = spread_utterances(times * together, plan.least_tokens, plan.most_tokens, round_number)
        found[together] = [jobs[start : start + together] for start in range(0, len(jobs), together)]
    return found


def attempt(
    side: Side,
    engine: str,
    weights: Path,
    plan: Plan,
    work: Mapping[int, list[list[BurstUtterance]]],
    number: int,
    folder: Path,
) -> Trial:
    """Give the side its turn in round `number`. Raises ServerError."""
    with side.start(engine, weights, plan, folder) as server:
        watch = MemoryWatch(server)
        runs, stages = {}, {}
        for together, batches in work.items():
            before = _stages(server)
            runs[together] = [send_burst(server, jobs, number, watch) for jobs in batches]
            if together == plan.utterances:
                stages = {stage: seconds - before.get(stage, 0.0) for stage, seconds in _stages(server).items()}
        threads = _threads(server)
        return Trial(
            side=side.name,
            round=number,
            described=side.described(plan, slots=_slots(server), threads=threads),
            threads=threads,
            models=max(1, len(server.sockets)),
            ready_seconds=server.ready_seconds,
            runs=runs,
            stages=stages,
            memory=watch.measure(),
        )


def _stages(server: Server) -> dict[str, float]:
    """Seconds that all its models together have spent so far, by stage."""
    total: dict[str, float] = {}
    for stage, seconds in _stages_by_model(server):
        total[stage] = total.get(stage, 0.0) + seconds
    return total


def _stages_by_model(server: Server) -> Iterator[tuple[str, float]]:
    for state in server.states():
        yield from state.stage_seconds.items()
    if not server.sockets:
        yield from _health(server)["stage_seconds"].items()


def _threads(server: Server) -> int:
    states = server.states()
    return states[0].threads if states else int(_health(server)["threads"])


def _slots(server: Server) -> int:
    return max((state.slots for state in server.states()), default=1)


def _health(server: Server) -> dict[str, Any]:
    """What the locked server says of itself."""
    report: dict[str, Any] = httpx.get(f"{server.url}/health", trust_env=False).json()
    return report
