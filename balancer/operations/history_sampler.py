"""Samples the metrics and the state of the host once a second for the history of the last hour."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from balancer.dispatch.host_state import HostState
from balancer.metrics import SPEECH_SURFACES, Metrics, outcome_of
from balancer.operations.history import History, Totals
from balancer.requests.cache_control import CacheOutcome

INTERVAL_SECONDS = 1.0

JOB_SURFACES = frozenset({"/queue", "/queue/batch"})

KINDS = ("speech", "jobs", "other")
OUTCOMES = ("ok", "invalid", "refused", "failed", "gone")

_TIMES = {"answer": "answer", "first_sound": "firstSound", "queue_wait": "queueWait", "loop_lag": "loopLag"}
"""Histograms of Metrics, and their names in the history."""

_LABELLED_COUNTS = {"cache": "cache", "jobs": "jobs", "refusals": "refusals", "webhooks": "webhooks"}
"""Counters with one label."""

_COUNTS = {
    "audio_seconds": "audioSeconds",
    "stream_gaps": "streams.gaps",
    "stream_gap_seconds": "streams.gapSeconds",
    "cache_errors": "faults.cacheErrors",
    "background_failures": "faults.taskFailures",
    "workers_lost": "faults.workersLost",
}
"""Counters of which only the sum counts."""

_ALWAYS_THERE = (
    *(f"requests.{kind}.{outcome}" for kind in KINDS for outcome in OUTCOMES),
    *(f"cache.{outcome.value}" for outcome in CacheOutcome),
    *(f"jobs.{outcome}" for outcome in ("done", "failed")),
    *(f"webhooks.{outcome}" for outcome in ("delivered", "failed", "given_up")),
)
"""Counts of labels that are known before their first event."""


class HistorySampler:
    """Fills `history`, which begins now."""

    def __init__(self, history: History, metrics: Metrics, host_state: HostState) -> None:
        self._history = history
        self._metrics = metrics
        self._host_state = host_state
        history.add(self.sample())

    async def run(self) -> None:
        """Sample once a second. Never returns."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # After a pause in which the loop stood still, the seconds that were missed are not made up for.
            due = max(due + INTERVAL_SECONDS, loop.time())
            await asyncio.sleep(due - loop.time())
            self._history.add(self.sample())

    def sample(self) -> Totals:
        """The counts until now, and the present levels."""
        return Totals(
            counts=self._counts(),
            levels=self._levels(),
            times={name: tuple(self._metrics.times[own].counts) for own, name in _TIMES.items()},
        )

    def _counts(self) -> dict[str, float]:
        counts = dict.fromkeys(_ALWAYS_THERE, 0.0)
        for (surface, status), number in self._metrics.values("requests").items():
            counts[f"requests.{_kind_of(surface)}.{outcome_of(int(status))}"] += number
        for own, name in _LABELLED_COUNTS.items():
            counts |= {f"{name}.{label}": number for (label,), number in self._metrics.values(own).items()}
        return counts | {name: _total(self._metrics.values(own).values()) for own, name in _COUNTS.items()}

    def _levels(self) -> dict[str, float]:
        host_state, metrics = self._host_state, self._metrics
        slots = host_state.slots
        return {
            **{f"queue.{priority.value}": depth for priority, depth in host_state.depths.items()},
            "slots.total": slots,
            "slots.busy": slots - host_state.free_slots,
            "streams.running": _total(metrics.values("streams").values()),
            "connections": _total(metrics.values("connections").values()),
            **{f"jobsKept.{state}": number for (state,), number in metrics.values("jobs_kept").items()},
        }


def _kind_of(surface: str) -> str:
    if surface in SPEECH_SURFACES:
        return "speech"
    return "jobs" if surface in JOB_SURFACES else "other"


def _total(values: Iterable[float]) -> float:
    return float(sum(values))
