"""Warnings for operators, in words: from the last minute and from the workers' state. No I/O.

`/health` has the warnings, and so have `chorus status` and the page. docs/operations.md says what to do about each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.history import Value

QUEUE_WAIT_SECONDS = 2.0
"""The 95th percentile of the queue wait above which there is a warning."""
LOOP_LAG_SECONDS = 0.1
"""The 99th percentile of the event loop's lag above which there is a warning."""

CAPACITY_REFUSALS = ("queue_full", "deadline_unreachable", "deadline_exceeded", "memory_full")
"""Codes of refusals for want of capacity."""

_GUIDE = "docs/operations.md"


@dataclass(frozen=True)
class HostWarning:
    """A warning: its kind, for programs, and words with figures of the last minute."""

    code: str
    message: str

    @classmethod
    def of(cls, code: str, words: str, symptom: str) -> HostWarning:
        """A warning that refers to a symptom in the guide for operators."""
        return cls(code, f'{words}: see {_GUIDE}, "{symptom}"')


def warnings_of(
    minute: Mapping[str, Value] | None, workers: Sequence[WorkerView], *, draining: bool
) -> list[HostWarning]:
    """The warnings, the gravest first. `minute` has the values of the last minute by name; None if there are none."""
    found = list(_of_workers(workers))
    if minute is not None:
        found += _of_minute(minute)
    if draining:
        found.append(HostWarning("draining", "the host is drained: /ready answers 503 until `chorus resume`"))
    return found


def _of_workers(workers: Sequence[WorkerView]) -> Iterator[HostWarning]:
    for view in workers:
        if (state := _PHASES.get(view.phase)) is not None:
            words = f"worker {view.index} {state}" + (f" ({view.reason})" if view.reason else "")
            yield HostWarning.of(f"worker_{view.phase.value}", words, "a worker crashes at every start")


_PHASES = {WorkerPhase.FAILED: "has failed", WorkerPhase.GONE: "does not run"}


def _of_minute(minute: Mapping[str, Value]) -> Iterator[HostWarning]:
    wait, lag = minute.get("queueWait.p95"), minute.get("loopLag.p99")
    if wait is not None and wait > QUEUE_WAIT_SECONDS:
        words = f"queue wait above {QUEUE_WAIT_SECONDS:g} s ({wait:.1f} s at the 95th percentile)"
        yield HostWarning.of("queue_wait", words, "answers are slow")
    refused = {code: number for code in CAPACITY_REFUSALS if (number := _count(minute, f"refusals.{code}"))}
    if refused:
        codes = ", ".join(f"{number} {code}" for code, number in refused.items())
        words = f"requests refused for want of capacity: {sum(refused.values())} ({codes})"
        yield HostWarning.of(
            "refusals", words, "503 memory_full" if set(refused) == {"memory_full"} else "503 queue_full"
        )
    if gaps := _count(minute, "streams.gaps"):
        seconds = minute.get("streams.gapSeconds") or 0.0
        yield HostWarning.of("stream_gaps", f"gaps in streams: {gaps} ({seconds:.1f} s together)", "streams have gaps")
    if lag is not None and lag > LOOP_LAG_SECONDS:
        words = f"the event loop wakes {lag:.1f} s too late (99th percentile)"
        yield HostWarning.of("loop_lag", words, "everything is late, workers idle")
    for name, (code, words, symptom) in _COUNTED.items():
        if number := _count(minute, name):
            yield HostWarning.of(code, f"{words}: {number}", symptom)


_COUNTED = {
    "faults.workersLost": ("workers_lost", "workers lost", "workers die now and then"),
    "faults.cacheErrors": ("cache_errors", "errors of the audio cache", "X-Cache is always miss"),
    "faults.taskFailures": ("task_failures", "failures of background tasks", "a background task fails"),
    "jobs.failed": ("jobs_failed", "failed jobs", "jobs failed"),
    "webhooks.given_up": ("webhooks_given_up", "webhooks given up", "webhooks do not arrive"),
}


def _count(minute: Mapping[str, Value], name: str) -> int:
    return int(minute.get(name) or 0)
