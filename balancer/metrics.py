"""What is measured: Prometheus metrics in a registry of their own, and the three numbers of the JSON answer.

Here are counters and histograms, which are told of events. What is true at a moment (depth, slots, workers) is read
when it is asked for: see `fleet_metrics`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

WINDOW_SECONDS = 60.0
"""What the JSON answer looks back on."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
REAL_TIME_FACTORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0)


class Metrics:
    """The balancer's counters and histograms. `clock` gives seconds that never go back."""

    def __init__(self, engine: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._waits: deque[tuple[float, float]] = deque()
        self._requests: deque[float] = deque()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        self._answers = self._counter("requests", "HTTP requests answered.", "surface", "status")
        self._request = self._histogram(
            "request_seconds", "From the request's arrival to the end of its answer.", "surface", "outcome"
        )
        self._first_byte = self._histogram(
            "first_byte_seconds", "From the request's arrival to the first byte of its audio.", "surface"
        )
        self._wait = self._histogram("queue_wait_seconds", "From joining the line to a free slot.", "outcome")
        self._synthesis = self._histogram(
            "synthesis_seconds", "One attempt at an utterance, from its slot to its end.", "outcome"
        )
        self._factor = self._histogram(
            "real_time_factor",
            "Seconds of work for a second of audio, of whole utterances.",
            buckets=REAL_TIME_FACTORS,
        )
        self._audio = self._counter("audio_seconds", "Audio spoken, before any tempo change.")
        self._refusals = self._counter("refusals", "Speech requests answered with an error, by its code.", "reason")
        self._cancellations = self._counter(
            "cancellations", "Utterances whose client left, by how far they had come.", "stage"
        )
        self._wasted = self._counter(
            "wasted_seconds", "Seconds that workers spent on what nobody heard, by why.", "reason"
        )
        self.retries = self._counter("retries", "Utterances run again because their worker failed them.")()
        self.hedges = self._counter("hedges", "Second attempts begun beside a slow first one.")()
        self.workers_lost = self._counter("workers_lost", "Workers that died or stopped answering, unasked.")()
        self._cache = self._counter("cache", "Speech requests answered, by where the audio came from.", "outcome")
        self.cache_errors = self._counter("cache_errors", "Times that the audio cache could not be used.")()
        self._jobs = self._counter("jobs", "Attempts at jobs, by how they ended.", "outcome")
        self._webhooks = self._counter("webhooks", "Tries to tell a webhook, by how they ended.", "outcome")
        self._jobs_kept = Gauge("chorus_jobs_kept", "Jobs in the store, by state.", ["state"], registry=self.registry)
        self.loop_lag = self._histogram(
            "loop_lag_seconds", "How much later than asked for the event loop woke.", buckets=LAG_SECONDS
        )()

    def _counter(self, name: str, what: str, *labels: str) -> Callable[..., Counter]:
        counter = Counter(f"chorus_{name}", what, labels, registry=self.registry)
        return cache(counter.labels) if labels else lambda: counter

    def _histogram(
        self, name: str, what: str, *labels: str, buckets: Sequence[float] = SECONDS
    ) -> Callable[..., Histogram]:
        """A histogram of this engine's. Labels are looked up once each: every request passes through several."""
        histogram = Histogram(f"chorus_{name}", what, ["engine", *labels], buckets=buckets, registry=self.registry)
        return cache(lambda *values: histogram.labels(self._engine, *values))

    def record_queue_wait(self, seconds: float, outcome: str = "ok") -> None:
        """An utterance left the line after so long: `ok` with a slot, else `cancelled` or `failed`."""
        self._wait(outcome).observe(seconds)
        if outcome == "ok":
            self._waits.append((self._clock(), seconds))
            self._forget()

    def record_attempt(self, outcome: str, seconds: float, audio_seconds: float) -> None:
        """An attempt ended: `ok`, `failed`, `cancelled`, `expired`, `refused` or `lost`."""
        self._synthesis(outcome).observe(seconds)
        if outcome == "ok" and audio_seconds > 0:
            self._factor().observe(seconds / audio_seconds)

    def record_wasted_seconds(self, reason: str, seconds: float) -> None:
        """A worker spent so long on an attempt that nobody will hear."""
        self._wasted(reason).inc(seconds)

    def record_cancellation(self, stage: str) -> None:
        """A client left while its utterance was `queued`, `running` or `encoding`."""
        self._cancellations(stage).inc()

    def record_refusal(self, reason: str) -> None:
        """A speech request was answered with the error of that code."""
        self._refusals(reason).inc()

    def record_audio(self, audio_seconds: float) -> None:
        """A speech request was answered with audio."""
        self._audio().inc(audio_seconds)
        self._requests.append(self._clock())
        self._forget()

    def record_cache_outcome(self, outcome: str) -> None:
        """A speech request's audio came from there: `hit`, `miss`, `coalesced`."""
        self._cache(outcome).inc()

    def record_job_attempt(self, outcome: str) -> None:
        """An attempt at a job ended: `done`, `failed`, `postponed`, `released`, `superseded`."""
        self._jobs(outcome).inc()

    def set_job_counts(self, counts: Mapping[str, int]) -> None:
        """So many jobs are in each state."""
        for state, count in counts.items():
            self._jobs_kept.labels(state).set(count)

    def record_webhook(self, outcome: str) -> None:
        """A webhook was tried: `delivered`, `failed`, `given_up`."""
        self._webhooks(outcome).inc()

    def record_response(self, surface: str, status: int, seconds: float) -> None:
        """A request was answered; `surface` is its route's path."""
        self._answers(surface, str(status)).inc()
        self._request(surface, outcome_of(status)).observe(seconds)

    def record_first_byte(self, surface: str, seconds: float) -> None:
        """The first of a request's audio left after so long."""
        self._first_byte(surface).observe(seconds)

    def summary(self, queue_depth: int) -> dict[str, float]:
        """The numbers of the JSON answer, over the last minute."""
        self._forget()
        waits = [seconds for _, seconds in self._waits]
        return {
            "queue_size": queue_depth,
            "avg_wait_time": round(sum(waits) / len(waits), 6) if waits else 0.0,
            "requests_per_minute": len(self._requests),
        }

    def exposition(self) -> bytes:
        """Every metric in Prometheus' text format."""
        return generate_latest(self.registry)

    def _forget(self) -> None:
        oldest = self._clock() - WINDOW_SECONDS
        while self._waits and self._waits[0][0] < oldest:
            self._waits.popleft()
        while self._requests and self._requests[0] < oldest:
            self._requests.popleft()


def outcome_of(status: int) -> str:
    """An HTTP status as one of few words, fit for a histogram's label."""
    match status:
        case 429 | 503:
            return "refused"
        case 499:
            return "gone"
        case _ if status >= 500 or status == 0:
            return "failed"
        case _ if status >= 400:
            return "invalid"
    return "ok"
