"""The state of one worker for `/health`, `/metrics` and `chorus status`."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.fleet.fleet import WorkerPhase
from balancer.scheduling.priority import Priority
from worker.contract import WorkerState


@dataclass(frozen=True)
class RunningUtterance:
    """An utterance that a worker is given, without its text."""

    voice: str
    characters: int
    priority: Priority
    seconds: float
    """Since it was given to the worker."""
    expected_seconds: float
    """Expected duration."""


@dataclass(frozen=True)
class WorkerView:
    """One worker as the balancer sees it."""

    index: int
    phase: WorkerPhase
    reason: str | None
    """Why the worker has failed or is gone."""
    state: WorkerState | None
    """The last answer of its process; None if no process answers."""
    running: tuple[RunningUtterance, ...] = ()
    """Its running utterances, the oldest first."""
