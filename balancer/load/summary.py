"""The summary of a load test's records."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from balancer.load.driver import RequestRecord
from balancer.load.texts import LENGTH_CLASSES


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of a duration over the requests, in seconds."""

    requests: int
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self | None:
        """The percentiles of these durations; None if there are none."""
        if not seconds:
            return None
        return cls(len(seconds), *np.percentile(seconds, (50, 90, 95, 99, 100)).tolist())


@dataclass(frozen=True)
class LoadSummary:
    """The result of a run.

    Latencies are those of complete answers, and of timed-out requests until their time-out: without the slowest, or
    with quick refusals, they would look better than they are.
    """

    seconds: float
    """From the start to the last answer."""
    requests: int
    succeeded: int
    failed: int
    abandoned: int
    """Requests without an answer at the second Ctrl-C; neither succeeded nor failed."""
    repeated: int
    """Requests for a text that was requested before."""
    errors: dict[str, int]
    """Failed requests by kind of failure."""
    latency: Percentiles | None
    latency_by_length: dict[str, Percentiles]
    requests_per_minute: float
    """Succeeded requests per minute."""
    audio_seconds: float | None
    """The length of all audio; None if any answer does not state its length."""
    audio_seconds_per_second: float | None
    segments_spoken: int | None
    """Segments of all texts that were spoken; None if any answer does not state it."""
    segments_cached: int | None
    """Segments of all texts that came from the cache, or were under way for another request; as above."""
    lag: Percentiles | None
    """Delay of this client's requests: if it is not small beside the latency, the client was the bottleneck."""


def summarise(records: Sequence[RequestRecord], *, seconds: float, abandoned: int) -> LoadSummary:
    """Summarise the records of a run of `seconds`, in which `abandoned` requests had no answer."""
    succeeded = [record for record in records if record.error is None]
    timed = [record for record in records if record.error in {None, "timeout"}]
    by_length = {
        length: percentiles
        for length in LENGTH_CLASSES
        if (percentiles := Percentiles.of([record.latency for record in timed if record.length == length]))
    }
    lengths = [record.audio_seconds for record in succeeded if record.audio_seconds is not None]
    audio_seconds = sum(lengths) if succeeded and len(lengths) == len(succeeded) else None
    segments = [record.segments for record in succeeded if record.segments is not None]
    counted = bool(segments) and len(segments) == len(succeeded)
    return LoadSummary(
        seconds=seconds,
        requests=len(records) + abandoned,
        succeeded=len(succeeded),
        failed=len(records) - len(succeeded),
        abandoned=abandoned,
        repeated=sum(record.repeated for record in records),
        errors=dict(Counter(record.error for record in records if record.error).most_common()),
        latency=Percentiles.of([record.latency for record in timed]),
        latency_by_length=by_length,
        requests_per_minute=60 * len(succeeded) / seconds,
        audio_seconds=audio_seconds,
        audio_seconds_per_second=None if audio_seconds is None else audio_seconds / seconds,
        segments_spoken=sum(count.spoken for count in segments) if counted else None,
        segments_cached=sum(count.cached for count in segments) if counted else None,
        lag=Percentiles.of([record.lag for record in records]),
    )
