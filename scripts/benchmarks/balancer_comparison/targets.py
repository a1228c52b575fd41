"""The targets of Chorus in comparison with HAProxy, and whether it reaches them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from balancer.load.summary import LoadSummary
from balancer.load.texts import LENGTH_CLASSES
from scripts.benchmarks.balancer_comparison.result import LoadLevel, latencies_by_length
from scripts.benchmarks.balancer_comparison.servers import Balancer

TARGET_PERCENT = 80
"""The load level for which there are targets."""
MAX_SHORT_P95_RATIO = 0.6
"""Of the 95th percentile of the latency of short texts, Chorus's over HAProxy's."""
MAX_P99_RATIO = 1.2
"""Of the 99th percentile of the latency, for each length class."""
MIN_THROUGHPUT_RATIO = 0.98
"""Of the throughput. Below capacity both answer all requests, and the time of the last answer, which ends the
measurement, depends on the last text: it varies by a second or so in a minute."""


@dataclass(frozen=True)
class TargetResult:
    """One target, and whether it is met."""

    target: str
    chorus: float | None
    """None if nothing could be measured."""
    haproxy: float | None
    unit: str
    met: bool
    """False if nothing could be measured."""

    @property
    def ratio(self) -> float | None:
        """Chorus's value over HAProxy's."""
        return self.chorus / self.haproxy if self.chorus is not None and self.haproxy else None


def check_targets(level: LoadLevel) -> list[TargetResult]:
    """The results of all targets at a load level."""
    chorus, haproxy = (level.summaries[balancer] for balancer in (Balancer.CHORUS, Balancer.HAPROXY))
    return [*_latencies(chorus, haproxy), _throughput(chorus, haproxy), _failures(chorus, haproxy)]


def _latencies(chorus: LoadSummary, haproxy: LoadSummary) -> Iterator[TargetResult]:
    yield _latency(chorus, haproxy, "short", "p95", MAX_SHORT_P95_RATIO)
    for length in LENGTH_CLASSES:
        yield _latency(chorus, haproxy, length, "p99", MAX_P99_RATIO)


def _latency(chorus: LoadSummary, haproxy: LoadSummary, length: str, quantile: str, max_ratio: float) -> TargetResult:
    ours, theirs = (
        getattr(latency, quantile) if (latency := latencies_by_length(summary).get(length)) else None
        for summary in (chorus, haproxy)
    )
    met = ours is not None and theirs is not None and ours <= max_ratio * theirs
    return TargetResult(f"{quantile} of {length} texts at most {max_ratio:g}x", ours, theirs, "s", met)


def _throughput(chorus: LoadSummary, haproxy: LoadSummary) -> TargetResult:
    ours, theirs = (summary.requests_per_minute / 60 for summary in (chorus, haproxy))
    target = f"throughput not lower (at least {MIN_THROUGHPUT_RATIO:g}x)"
    return TargetResult(target, ours, theirs, "requests/s", 0 < MIN_THROUGHPUT_RATIO * theirs <= ours)


def _failures(chorus: LoadSummary, haproxy: LoadSummary) -> TargetResult:
    """Without this target, requests could be refused to improve the latencies."""
    target = "no more refusals and errors"
    return TargetResult(target, chorus.failed, haproxy.failed, "requests", chorus.failed <= haproxy.failed)
