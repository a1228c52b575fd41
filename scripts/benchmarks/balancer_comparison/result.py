"""What the runs add up to: capacity, and for each level the latencies on both sides and their ratios. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from scripts.benchmarks.balancer_comparison.measure import Run
from scripts.benchmarks.balancer_comparison.servers import Side
from scripts.load.report import LoadSummary, Percentiles, summarise

QUANTILES = ("p50", "p95", "p99")
ALL = "all"


def summary_of(runs: Sequence[Run]) -> LoadSummary:
    """All requests of several runs taken together."""
    records = [record for run in runs for record in run.records]
    return summarise(records, seconds=sum(run.seconds for run in runs), abandoned=0)


def spreads(summary: LoadSummary) -> dict[str, Percentiles]:
    """Latency by length, then of all texts; what was never answered is not there."""
    return summary.latency_by_length | ({ALL: summary.latency} if summary.latency else {})


@dataclass(frozen=True)
class Capacity:
    """How much the workers speak in a closed loop with more clients than they can serve at once."""

    clients: int
    runs: list[Run]

    def of(self, side: Side) -> float:
        """Characters of text a second through one front, from the start to the last answer."""
        runs = [run for run in self.runs if run.side is side]
        return sum(run.characters for run in runs) / sum(run.seconds for run in runs)

    @property
    def characters_per_second(self) -> float:
        """What loads are shares of: the mean of both sides."""
        return fmean(self.of(side) for side in Side)


@dataclass(frozen=True)
class Level:
    """One load, the same on both sides."""

    percent: int
    """Of capacity."""
    rates: list[float]
    """Requests a second, by round: such that the round's texts come to that share in characters."""
    runs: list[Run]

    @cached_property
    def summaries(self) -> dict[Side, LoadSummary]:
        """All rounds together."""
        return {side: summary_of([run for run in self.runs if run.side is side]) for side in Side}

    @cached_property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Chorus's latency over HAProxy's by length and quantile, where both have answered any."""
        chorus, haproxy = (spreads(self.summaries[side]) for side in (Side.CHORUS, Side.HAPROXY))
        return {
            length: {name: getattr(chorus[length], name) / getattr(haproxy[length], name) for name in QUANTILES}
            for length in chorus
            if length in haproxy
        }

    def by_round(self) -> list[Level]:
        """The same, each round on its own."""
        return [
            Level(self.percent, [rate], [run for run in self.runs if run.round == number])
            for number, rate in enumerate(self.rates)
        ]
