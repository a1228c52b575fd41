"""The balancer's Prometheus metrics, in a registry of their own, and the summary that `/metrics` returns as JSON.

This module has the counters and histograms, which record events. Gauges of the current state (queue depth, slots,
workers) are computed at each scrape by `balancer.operations.fleet_collector`. `balancer.operations.history_sampler`
reads what the history of the last hour needs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from balancer.time_histogram import TimeHistogram
from balancer.version import REVISION, VERSION

SUMMARY_WINDOW_SECONDS = 60.0
"""Period that the JSON summary covers."""

SPEECH_SURFACES = frozenset({"/v1/audio/speech", "/tts", "/tts-json"})
"""Routes that answer with audio."""

_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LAG_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_REAL_TIME_FACTOR_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0)


class Metrics:
    """The balancer's counters and histograms. `clock` is monotonic, in seconds."""

    def __init__(self, engine: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._recent_waits: deque[tuple[float, float]] = deque()
        self._recent_requests: deque[float] = deque()
        self.open_requests = 0
        """Requests whose response has not ended."""
        self.registry = CollectorRegistry()
        self._families: dict[str, Counter | Gauge] = {}
        self.times = {name: TimeHistogram() for name in ("answer", "first_sound", "queue_wait", "loop_lag")}
        """Finer than Prometheus' buckets, for percentiles: whole answers, first bytes of streams, waits, lag."""
        ProcessCollector(registry=self.registry)

        build = Gauge("chorus_build_info", "1, with the version.", ["version", "revision"], registry=self.registry)
        build.labels(VERSION, REVISION).set(1)
        self._responses = self._counter("requests", "HTTP responses sent, by route and status.", "surface", "status")
        self.connections = self._gauge("connections", "Open connections of clients.")
        self._connections_ended = self._counter(
            "connections_ended", "Connections of clients that the server ended without a response to them.", "reason"
        )
        self._request_seconds = self._histogram(
            "request_seconds", "Time from the arrival of a request to the end of its response.", "surface", "outcome"
        )
        self._first_byte_seconds = self._histogram(
            "first_byte_seconds", "Time from the arrival of a request to the first byte of its audio.", "surface"
        )
        self._queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "Time an utterance spent in the queue.", "outcome"
        )
        self._synthesis_seconds = self._histogram(
            "synthesis_seconds", "Duration of one attempt at an utterance on a worker.", "outcome"
        )
        self._real_time_factor = self._histogram(
            "real_time_factor",
            "Seconds of work per second of audio, for completed utterances.",
            buckets=_REAL_TIME_FACTOR_BUCKETS,
        )
        self._audio_seconds = self._counter(
            "audio_seconds", "Seconds of audio sent to clients, before any tempo change."
        )
        self._refusals = self._counter("refusals", "Speech requests answered with an error, by error code.", "reason")
        self._cancellations = self._counter("cancellations", "Utterances whose client disconnected, by stage.", "stage")
        self._wasted_seconds = self._counter(
            "wasted_seconds", "Seconds that workers spent on audio that was never used, by reason.", "reason"
        )
        self.retries = self._counter("retries", "Utterances run again because their worker failed.")()
        self.hedges = self._counter("hedges", "Second attempts started beside a slow first one.")()
        self.workers_lost = self._counter("workers_lost", "Workers that crashed or stopped responding.")()
        self.workers_ejected = self._counter(
            "workers_ejected", "Workers that were restarted because they failed where others succeeded."
        )()
        self._worker_failures = self._counter(
            "worker_failures", "Attempts that failed on a worker, by the kind of failure.", "worker", "kind"
        )
        self._cache = self._counter("cache", "Speech requests answered, by the source of their audio.", "outcome")
        self.cache_errors = self._counter("cache_errors", "Failed reads and writes of the audio cache.")()
        self.streams = self._gauge("streams", "Answers that are being sent while they are made.")
        self.stream_headroom = self._gauge(
            "stream_headroom", "Audio seconds per second that the workers make beyond what running streams take."
        )
        self._stream_gaps = self._counter("stream_gaps", "Times that a stream's listener had nothing to play.")
        self._stream_delay_seconds = self._counter(
            "stream_delay_seconds", "Seconds that first sounds were held back so that their streams have no gap."
        )
        self._stream_gap_seconds = self._counter("stream_gap_seconds", "Seconds that streams' listeners had to wait.")
        self._jobs = self._counter("jobs", "Finished attempts at jobs, by outcome.", "outcome")
        self._webhooks = self._counter("webhooks", "Attempts to deliver a webhook, by outcome.", "outcome")
        self.jobs_unreadable = self._counter("jobs_unreadable", "Stored jobs that could not be read and have failed.")()
        self.jobs_audio_bytes = self._gauge(
            "jobs_audio_bytes", "Size of the audio of jobs in the store, with what is reserved for running ones."
        )
        self._jobs_kept = self._gauge("jobs_kept", "Jobs in the store, by state.", "state")
        # Set at each scrape by a function that the composition root gives them.
        self.degraded = self._gauge("degraded", "Number of parts that do not work while speech does: see `/ready`.")
        self.encoder_queue_depth = self._gauge("encoder_queue_depth", "Files that wait to be encoded.")
        self.encoders_running = self._gauge("encoders_running", "Files that are being encoded.")
        self.audio_memory_bytes = self._gauge("audio_memory_bytes", "Audio of requests under way, in memory.")
        self.audio_file_bytes = self._gauge("audio_file_bytes", "Audio of requests under way, in temporary files.")
        self.background_failures = self._counter(
            "background_failures", "Failures of background tasks of the balancer, by task.", "task"
        )
        self._loop_lag = self._histogram(
            "loop_lag_seconds", "Time by which the event loop woke later than scheduled.", buckets=_LAG_SECONDS_BUCKETS
        )()

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        self._families[name] = gauge = Gauge(f"chorus_{name}", description, labels, registry=self.registry)
        return gauge

    def _counter(self, name: str, description: str, *labels: str) -> Callable[..., Counter]:
        self._families[name] = counter = Counter(f"chorus_{name}", description, labels, registry=self.registry)
        return cache(counter.labels) if labels else lambda: counter

    def _histogram(
        self, name: str, description: str, *labels: str, buckets: Sequence[float] = _SECONDS_BUCKETS
    ) -> Callable[..., Histogram]:
        """A histogram with the engine as its first label.

        Children are cached by their labels: every request records into several histograms.
        """
        histogram = Histogram(
            f"chorus_{name}", description, ["engine", *labels], buckets=buckets, registry=self.registry
        )
        return cache(lambda *values: histogram.labels(self._engine, *values))

    def record_queue_wait(self, seconds: float, outcome: str = "ok") -> None:
        """Record that an utterance left the queue: `ok` with a slot, else `cancelled` or `failed`."""
        self._queue_wait_seconds(outcome).observe(seconds)
        if outcome == "ok":
            self.times["queue_wait"].observe(seconds)
            self._recent_waits.append((self._clock(), seconds))
            self._drop_old()

    def record_attempt(self, outcome: str, seconds: float, audio_seconds: float) -> None:
        """Record the end of an attempt: `ok`, `failed`, `cancelled`, `expired`, `refused` or `lost`."""
        self._synthesis_seconds(outcome).observe(seconds)
        if outcome == "ok" and audio_seconds > 0:
            self._real_time_factor().observe(seconds / audio_seconds)

    def record_wasted_seconds(self, reason: str, seconds: float) -> None:
        """Record the time that a worker spent on audio that is not used."""
        self._wasted_seconds(reason).inc(seconds)

    def record_worker_failure(self, index: int, kind: str) -> None:
        """Record that an attempt failed on a worker: `engine`, `contract` or `timeout`."""
        self._worker_failures(str(index), kind).inc()

    def record_cancellation(self, stage: str) -> None:
        """Record that a client disconnected while its utterance was `queued`, `running` or `encoding`."""
        self._cancellations(stage).inc()

    def record_refusal(self, reason: str) -> None:
        """Record that a speech request was answered with an error; `reason` is its code."""
        self._refusals(reason).inc()

    def record_audio(self, audio_seconds: float) -> None:
        """Record that a speech request was answered with audio of this length."""
        self._audio_seconds().inc(audio_seconds)
        self._recent_requests.append(self._clock())
        self._drop_old()

    def record_cache_outcome(self, outcome: str) -> None:
        """Record the source of a speech request's audio: `hit`, `miss` or `coalesced`."""
        self._cache(outcome).inc()

    def record_stream_gap(self, seconds: float) -> None:
        """Record how long a stream's listener had nothing to play; 0: no gap."""
        if seconds:
            self._stream_gaps().inc()
            self._stream_gap_seconds().inc(seconds)

    def record_stream_delay(self, seconds: float) -> None:
        """Record how long a stream's first sound was held back."""
        if seconds:
            self._stream_delay_seconds().inc(seconds)

    def record_job_attempt(self, outcome: str) -> None:
        """Record the end of an attempt at a job: `done`, `failed`, `postponed`, `released`, `superseded`."""
        self._jobs(outcome).inc()

    def set_job_counts(self, counts: Mapping[str, int]) -> None:
        """Set the number of stored jobs by state."""
        for state, count in counts.items():
            self._jobs_kept.labels(state).set(count)

    def record_webhook(self, outcome: str) -> None:
        """Record an attempt to deliver a webhook: `delivered`, `failed`, `given_up`."""
        self._webhooks(outcome).inc()

    def record_response(self, surface: str, status: int, seconds: float, *, streamed: bool = False) -> None:
        """Record an HTTP response; `surface` is the path of its route. `streamed`: sent while it was made."""
        self._responses(surface, str(status)).inc()
        self._request_seconds(surface, (outcome := outcome_of(status))).observe(seconds)
        if surface in SPEECH_SURFACES and outcome == "ok" and not streamed:
            self.times["answer"].observe(seconds)

    def record_connection_ended(self, reason: str) -> None:
        """Record that the server ended a connection: for lack of room, a time limit, or bytes that are no request."""
        self._connections_ended(reason).inc()

    def record_first_byte(self, surface: str, seconds: float, *, streamed: bool = False) -> None:
        """Record the time until the first byte of a request's audio was sent; `streamed`: while the rest is made."""
        self._first_byte_seconds(surface).observe(seconds)
        if streamed:
            self.times["first_sound"].observe(seconds)

    def record_loop_lag(self, seconds: float) -> None:
        """Record by how much the event loop woke later than scheduled."""
        self._loop_lag.observe(seconds)
        self.times["loop_lag"].observe(seconds)

    def summary(self, queue_depth: int) -> dict[str, float]:
        """The JSON summary of `/metrics`, over the last minute."""
        self._drop_old()
        waits = [seconds for _, seconds in self._recent_waits]
        return {
            "queue_size": queue_depth,
            "avg_wait_time": round(sum(waits) / len(waits), 6) if waits else 0.0,
            "requests_per_minute": len(self._recent_requests),
        }

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a counter or gauge by those of its labels; `name` is without `chorus_` and `_total`."""
        (family,) = self._families[name].collect()
        return {
            tuple(sample.labels.values()): sample.value
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _drop_old(self) -> None:
        oldest = self._clock() - SUMMARY_WINDOW_SECONDS
        while self._recent_waits and self._recent_waits[0][0] < oldest:
            self._recent_waits.popleft()
        while self._recent_requests and self._recent_requests[0] < oldest:
            self._recent_requests.popleft()


def outcome_of(status: int) -> str:
    """The outcome label of an HTTP status: few values, because each makes a histogram of its own."""
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
