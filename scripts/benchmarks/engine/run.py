"""The turn of one baseline: its server is started, answers bursts of all sizes, and is ended again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.benchmarks.burst import BurstResult, BurstUtterance, send_burst, spread_utterances
from scripts.benchmarks.engine.baselines import Baseline, EnginePlan
from scripts.support.memory import MemoryWatch, ProcessMemory
from scripts.support.servers import Server

SINGLE_UTTERANCES = 3
"""Utterances that are sent one after the other where the burst has size 1."""


@dataclass(frozen=True)
class BaselineRun:
    """The measurements of one baseline in one round."""

    baseline: str
    """Name of the baseline."""
    round: int
    description: str
    threads: int
    """Threads per model."""
    models: int
    """Number of models."""
    ready_seconds: float
    """From the start of the process until it was ready, warm-up included."""
    bursts: dict[int, list[BurstResult]]
    """Bursts by their size; several bursts of one size are sent one after the other."""
    stages: dict[str, float]
    """Seconds that all models together spent in each stage during the burst of all utterances."""
    memory: list[ProcessMemory]

    def speed(self, size: int) -> float:
        """Seconds of audio per second, with bursts of that size."""
        bursts = self.bursts[size]
        return sum(sum(burst.audio_seconds) for burst in bursts) / sum(burst.seconds for burst in bursts)

    def first_answers(self, size: int) -> list[float]:
        """Seconds until the first complete answer, of each burst of that size."""
        return [min(burst.answers) for burst in self.bursts[size]]


def round_bursts(plan: EnginePlan, round_number: int) -> dict[int, list[list[BurstUtterance]]]:
    """The bursts of a round by their size, the same for every baseline."""
    bursts = {}
    for size in sorted({*plan.concurrency, plan.utterances}):
        count = SINGLE_UTTERANCES if size == 1 else size
        utterances = spread_utterances(count, plan.min_tokens, plan.max_tokens, round_number)
        bursts[size] = [utterances[start : start + size] for start in range(0, count, size)]
    return bursts


def run_baseline(
    baseline: Baseline,
    engine: str,
    weights: Path,
    plan: EnginePlan,
    bursts: Mapping[int, list[list[BurstUtterance]]],
    round_number: int,
    folder: Path,
) -> BaselineRun:
    """Start the server of a baseline and send it all bursts of a round. Raises ServerError."""
    with baseline.start(engine, weights, plan, folder) as server:
        watch = MemoryWatch(server)
        results: dict[int, list[BurstResult]] = {}
        stages: dict[str, float] = {}
        for size, batches in bursts.items():
            before = _stage_seconds(server)
            results[size] = [send_burst(server, utterances, round_number, watch) for utterances in batches]
            if size == plan.utterances:
                stages = {stage: seconds - before.get(stage, 0.0) for stage, seconds in _stage_seconds(server).items()}
        threads = _threads(server)
        return BaselineRun(
            baseline=baseline.name,
            round=round_number,
            description=baseline.describe(plan, slots=_slots(server), threads=threads),
            threads=threads,
            models=max(1, len(server.sockets)),
            ready_seconds=server.ready_seconds,
            bursts=results,
            stages=stages,
            memory=watch.measure(),
        )


def _stage_seconds(server: Server) -> dict[str, float]:
    """Seconds that all models together have spent in each stage so far."""
    total: dict[str, float] = {}
    for stage, seconds in _stages_by_model(server):
        total[stage] = total.get(stage, 0.0) + seconds
    return total


def _stages_by_model(server: Server) -> Iterator[tuple[str, float]]:
    for state in server.states():
        yield from state.stage_seconds.items()
    if not server.sockets:
        yield from _locked_server_health(server)["stage_seconds"].items()


def _threads(server: Server) -> int:
    states = server.states()
    return states[0].threads if states else int(_locked_server_health(server)["threads"])


def _slots(server: Server) -> int:
    return max((state.slots for state in server.states()), default=1)


def _locked_server_health(server: Server) -> dict[str, Any]:
    report: dict[str, Any] = httpx.get(f"{server.url}/health", trust_env=False).json()
    return report
