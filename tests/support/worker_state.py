"""The state of a worker that no process reports."""

from __future__ import annotations

from worker.contract import WorkerState


def worker_state(**changes: object) -> WorkerState:
    """The state of an idle, ready worker 0 with one slot; `changes` replace its fields."""
    fields: dict[str, object] = {
        "index": 0,
        "pid": 1,
        "phase": "ready",
        "engine": "hibari",
        "model": "stub",
        "sample_rate": 24_000,
        "cores": (0,),
        "threads": 1,
        "slots": 1,
        "in_flight": (),
        "done": 0,
        "progress": 0,
        "speed": None,
        "voices_prepared": (),
        "resident_bytes": 1,
        "cpu_seconds": 0.0,
        "started_at": 0.0,
    }
    return WorkerState.model_validate(fields | changes)
