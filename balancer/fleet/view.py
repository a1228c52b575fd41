"""The state of one worker for `/health`, `/metrics` and `chorus status`."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.fleet.fleet import WorkerPhase
from worker.contract import WorkerState


@dataclass(frozen=True)
class WorkerView:
    """One worker as the balancer sees it."""

    index: int
    phase: WorkerPhase
    reason: str | None
    """Why the worker has failed or is gone."""
    state: WorkerState | None
    """The last answer of its process; None if no process answers."""
