"""Jobs for tests of the stores, and their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from balancer.audio.buffers import MemoryBuffer
from balancer.jobs.job import Job, JobError
from balancer.jobs.store import JobResult

Opened = Callable[..., Any]
"""Opens a store, as the fixture `opened` does."""

ERROR = JobError(code="synthesis_failed", message="no")
RESULT = JobResult(MemoryBuffer(b"RIFF audio"), 1.5, "digest")
LEASE = 60.0
"""Seconds for which a claim in Redis holds without being renewed: longer than any process is held up."""


def job(number: int, **changes: Any) -> Job:
    """The job `job-<number>` of the caller `someone`, unless its fields are changed."""
    fields: dict[str, Any] = {
        "id": f"job-{number}",
        "caller": "someone",
        "body": {"text": f"Text {number}."},
        "characters": 10,
        "created": 1000.0,
        "format": "wav",
        "request_digest": f"digest {number}",
    }
    return Job(**(fields | changes))


def found(job: Job | None) -> Job:
    """The job, which a store must have."""
    assert job is not None
    return job
