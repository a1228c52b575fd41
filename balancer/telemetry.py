"""What is measured: Prometheus metrics in a registry of their own, and the three numbers of the JSON answer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

WINDOW_SECONDS = 60.0
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Telemetry:
    """The balancer's counters and histograms. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._registry = CollectorRegistry()
        self._waits: deque[tuple[float, float]] = deque()
        self._requests: deque[float] = deque()
        self.requests = Counter(
            "chorus_requests", "HTTP requests answered.", ["surface", "status"], registry=self._registry
        )
        self.request_seconds = Histogram(
            "chorus_request_seconds",
            "From the request's arrival to the end of its answer.",
            ["surface"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.queue_wait = Histogram(
            "chorus_queue_wait_seconds",
            "From joining the line to a free slot.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.audio_seconds = Counter(
            "chorus_audio_seconds", "Audio spoken, before any tempo change.", registry=self._registry
        )
        self.retries = Counter(
            "chorus_retries", "Utterances run again because their worker was lost.", registry=self._registry
        )
        self.workers_lost = Counter(
            "chorus_workers_lost", "Workers that died or stopped answering.", registry=self._registry
        )
        self.workers = Gauge("chorus_workers", "Workers by phase.", ["phase"], registry=self._registry)
        self.queue_depth = Gauge("chorus_queue_depth", "Utterances in line.", registry=self._registry)

    def waited(self, seconds: float) -> None:
        """An utterance got its slot after that long in line."""
        self.queue_wait.observe(seconds)
        self._waits.append((self._clock(), seconds))
        self._forget()

    def answered(self, surface: str, status: int, seconds: float) -> None:
        """A request was answered; `surface` is its route's path."""
        self.requests.labels(surface, str(status)).inc()
        self.request_seconds.labels(surface).observe(seconds)

    def spoken(self, audio_seconds: float) -> None:
        """A speech request was answered with audio."""
        self.audio_seconds.inc(audio_seconds)
        self._requests.append(self._clock())
        self._forget()

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
        return generate_latest(self._registry)

    def _forget(self) -> None:
        oldest = self._clock() - WINDOW_SECONDS
        while self._waits and self._waits[0][0] < oldest:
            self._waits.popleft()
        while self._requests and self._requests[0] < oldest:
            self._requests.popleft()
