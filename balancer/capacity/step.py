"""What was measured at one rate of requests. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from balancer.host.conditions import FrozenModel
from balancer.load.driver import RequestRecord
from balancer.load.summary import Percentiles

GROWTH_PARTS = 3
"""Latencies rise if they are longer in the last of so many parts of a step than in the first."""
MIN_FOR_GROWTH = 10
"""Requests in each part, without which nothing is said of growth."""


class Spread(FrozenModel):
    """Percentiles of a duration, in seconds."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """The percentiles of these durations; all 0 if there are none."""
        found = Percentiles.of(seconds) or Percentiles(0, p50=0.0, p90=0.0, p95=0.0, p99=0.0, max=0.0)
        return cls(p50=found.p50, p90=found.p90, p95=found.p95, p99=found.p99, max=found.max)


class Sample(FrozenModel):
    """The server at one moment of a step. None: it does not say."""

    at: float
    """Seconds since the start of the step."""
    outstanding: int
    """Requests of this client without an answer."""
    queue_depth: int | None = None
    slots: int | None = None
    slots_used: int | None = None
    worker_cores: float | None = None
    """CPUs that the workers keep busy."""
    host_cpu: float | None = None
    """Share of the host's CPUs that is busy, in [0, 1], this client included; None if the server is elsewhere."""


class StepTotals(FrozenModel):
    """The server's counters, as sums since its start, or as the difference of two such."""

    utterances: float = 0.0
    synthesis_seconds: float = 0.0
    """Of all utterances together, on their slots."""
    queue_seconds: float = 0.0
    balancer_cpu_seconds: float = 0.0
    cache_hits: float = 0.0
    """Requests that were answered from the cache."""

    def since(self, earlier: StepTotals) -> StepTotals:
        """The difference."""
        return StepTotals(**{name: getattr(self, name) - getattr(earlier, name) for name in StepTotals.model_fields})


class Step(FrozenModel):
    """One rate of requests, and how the server answered them.

    Latencies count from the time at which a request was due, so they include the wait behind others that stall. A
    request without an answer when the step was ended counts with its age.
    """

    rate: float
    """Requests per second that were meant to be sent."""
    seconds: float
    """In which requests were sent."""
    requests: int
    failed: int
    unanswered: int
    """Requests without an answer when the step was ended."""
    latency: Spread
    latency_short: Spread | None
    """Of the texts of one sentence; None if the texts are not those of the built-in mix."""
    first_sound: Spread | None
    gaps: int
    rise: float
    """By how many seconds latencies were longer in the last third of the step than in the first."""
    audio_seconds: float
    characters: int
    """Of the texts that were answered."""
    lag: float
    """How late this client sent its requests, p99 in seconds."""
    totals: StepTotals | None
    """None if the server does not say."""
    samples: tuple[Sample, ...] = ()

    @property
    def answered(self) -> int:
        """Requests with complete audio."""
        return self.requests - self.failed - self.unanswered

    @property
    def offered_rate(self) -> float:
        """Requests per second that were sent: arrivals at random times are not as many as is meant."""
        return self.requests / self.seconds

    def mean(self, field: str) -> float | None:
        """The mean of a field of the samples; None if the server does not say."""
        values = [value for sample in self.samples if (value := getattr(sample, field)) is not None]
        return sum(values) / len(values) if values else None

    @classmethod
    def of(
        cls,
        rate: float,
        seconds: float,
        records: Sequence[RequestRecord],
        ages: Sequence[float],
        *,
        totals: StepTotals | None = None,
        samples: Sequence[Sample] = (),
    ) -> Self:
        """Summarise the records of a step; `ages` are those of the requests without an answer."""
        succeeded = [record for record in records if record.error is None]
        latencies = [record.latency for record in records]
        short = [record.latency for record in records if record.length == "short"]
        first_sounds = [record.first_sound for record in succeeded if record.first_sound is not None]
        return cls(
            rate=rate,
            seconds=seconds,
            requests=len(records) + len(ages),
            failed=len(records) - len(succeeded),
            unanswered=len(ages),
            latency=Spread.of([*latencies, *ages]),
            latency_short=Spread.of(short) if short else None,
            first_sound=Spread.of([*first_sounds, *ages]) if first_sounds else None,
            gaps=sum(record.gaps for record in succeeded),
            rise=_rise(records, seconds),
            audio_seconds=sum(record.audio_seconds or 0.0 for record in succeeded),
            characters=sum(record.characters for record in succeeded),
            lag=float(np.percentile([record.lag for record in records], 99)) if records else 0.0,
            totals=totals,
            samples=tuple(samples),
        )


def _rise(records: Sequence[RequestRecord], seconds: float) -> float:
    part = seconds / GROWTH_PARTS
    waits = [(record.intended, record.first_sound or record.latency) for record in records]
    first = [wait for due, wait in waits if due < part]
    last = [wait for due, wait in waits if due >= seconds - part]
    if min(len(first), len(last)) < MIN_FOR_GROWTH:
        return 0.0
    return float(np.median(last) - np.median(first))
