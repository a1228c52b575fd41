"""The state of one worker for `/health`, `/metrics` and `chorus status`."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.fleet.fleet import WorkerPhase
from worker.contract import WorkerState


@dataclass(frozen=True)
class WorkerView:
    """One worker: its phase as the balancer sees it, and `state`, its own last report (None: no process answers)."""

    index: int
    phase: WorkerPhase
    reason: str | None
    state: WorkerState | None
