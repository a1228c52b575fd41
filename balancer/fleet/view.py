"""One worker as operators see it."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.fleet.fleet import WorkerPhase
from worker.contract import WorkerState


@dataclass(frozen=True)
class WorkerView:
    """One worker for operators: the balancer's view of it and its own last report."""

    index: int
    phase: WorkerPhase
    reason: str | None
    state: WorkerState | None
