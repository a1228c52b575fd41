"""What Chorus is to gain over HAProxy, and whether it did. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scripts.benchmarks.balancer_comparison.result import Level, spreads
from scripts.benchmarks.balancer_comparison.servers import Side
from scripts.load.report import LoadSummary
from scripts.load.texts import LENGTH_CLASSES

JUDGED_PERCENT = 80
SHORT_P95 = 0.6
"""Most of HAProxy's that the 95th percentile of short texts may take."""
ANY_P99 = 1.2
"""The same of the 99th percentile of texts of any length."""
SAME_THROUGHPUT = 0.98
"""Of HAProxy's, and not less. Below capacity both answer all that is offered, and when the last answer comes, which
ends the time that counts, is a matter of which text was last: a second or less of a minute or so."""


@dataclass(frozen=True)
class Verdict:
    """One aim and what came of it."""

    aim: str
    chorus: float | None
    """None where there was nothing to measure."""
    haproxy: float | None
    unit: str
    met: bool
    """What could not be measured is not met."""

    @property
    def ratio(self) -> float | None:
        """Chorus's over HAProxy's."""
        return self.chorus / self.haproxy if self.chorus is not None and self.haproxy else None


def judge(level: Level) -> list[Verdict]:
    """The verdicts on the level that counts."""
    chorus, haproxy = (level.summaries[side] for side in (Side.CHORUS, Side.HAPROXY))
    return [*_latencies(chorus, haproxy), _throughput(chorus, haproxy), _failures(chorus, haproxy)]


def _latencies(chorus: LoadSummary, haproxy: LoadSummary) -> Iterator[Verdict]:
    yield _latency(chorus, haproxy, "short", "p95", SHORT_P95)
    for length in LENGTH_CLASSES:
        yield _latency(chorus, haproxy, length, "p99", ANY_P99)


def _latency(chorus: LoadSummary, haproxy: LoadSummary, length: str, quantile: str, most: float) -> Verdict:
    ours, theirs = (
        getattr(found, quantile) if (found := spreads(summary).get(length)) else None for summary in (chorus, haproxy)
    )
    met = ours is not None and theirs is not None and ours <= most * theirs
    return Verdict(f"{quantile} of {length} texts at most {most:g}x", ours, theirs, "s", met)


def _throughput(chorus: LoadSummary, haproxy: LoadSummary) -> Verdict:
    ours, theirs = (summary.requests_per_minute / 60 for summary in (chorus, haproxy))
    aim = f"throughput not lower (at least {SAME_THROUGHPUT:g}x)"
    return Verdict(aim, ours, theirs, "requests/s", 0 < SAME_THROUGHPUT * theirs <= ours)


def _failures(chorus: LoadSummary, haproxy: LoadSummary) -> Verdict:
    """Without it, latencies could be had by refusing."""
    aim = "no more refusals and errors"
    return Verdict(aim, chorus.failed, haproxy.failed, "requests", chorus.failed <= haproxy.failed)
