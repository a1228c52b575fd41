"""The result of all runs: capacity, and for each load level the latencies of both balancers and their ratios. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from balancer.load.summary import LoadSummary, Percentiles, summarise
from scripts.benchmarks.balancer_comparison.measure import LoadRun
from scripts.benchmarks.balancer_comparison.servers import Balancer

QUANTILES = ("p50", "p95", "p99")
ALL = "all"


def summarise_runs(runs: Sequence[LoadRun]) -> LoadSummary:
    """The summary of all requests of several runs."""
    records = [record for run in runs for record in run.records]
    return summarise(records, seconds=sum(run.seconds for run in runs), abandoned=0)


def latencies_by_length(summary: LoadSummary) -> dict[str, Percentiles]:
    """Latencies by length class and then of ALL texts; a class without answers is missing."""
    return summary.latency_by_length | ({ALL: summary.latency} if summary.latency else {})


@dataclass(frozen=True)
class Capacity:
    """The throughput in a closed loop with more clients than the workers can serve at once."""

    clients: int
    runs: list[LoadRun]

    def of(self, balancer: Balancer) -> float:
        """Characters of text per second through one balancer, from the start to the last answer."""
        runs = [run for run in self.runs if run.balancer is balancer]
        return sum(run.characters for run in runs) / sum(run.seconds for run in runs)

    @property
    def characters_per_second(self) -> float:
        """The capacity that load levels are shares of: the mean of both balancers."""
        return fmean(self.of(balancer) for balancer in Balancer)


@dataclass(frozen=True)
class LoadLevel:
    """The runs at one level of load, which is the same for both balancers."""

    percent: int
    """Load in per cent of the capacity."""
    rates: list[float]
    """Requests per second in each round: so many that the round's texts come to that load in characters."""
    runs: list[LoadRun]

    @cached_property
    def summaries(self) -> dict[Balancer, LoadSummary]:
        """The summary of all rounds, by balancer."""
        return {
            balancer: summarise_runs([run for run in self.runs if run.balancer is balancer]) for balancer in Balancer
        }

    @cached_property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Chorus's latency over HAProxy's by length and quantile; lengths that both have answered."""
        chorus, haproxy = (latencies_by_length(self.summaries[one]) for one in (Balancer.CHORUS, Balancer.HAPROXY))
        return {
            length: {name: getattr(chorus[length], name) / getattr(haproxy[length], name) for name in QUANTILES}
            for length in chorus
            if length in haproxy
        }

    def by_round(self) -> list[LoadLevel]:
        """A level for each round."""
        return [
            LoadLevel(self.percent, [rate], [run for run in self.runs if run.round == number])
            for number, rate in enumerate(self.rates)
        ]
