from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from balancer.metrics import Metrics
from balancer.operations.history import History
from balancer.operations.history_sampler import HistorySampler
from balancer.scheduling.priority import Priority
from balancer.time_histogram import percentile


class HostState:
    """The part of a host's state that is sampled."""

    slots, free_slots = 5, 2

    def __init__(self) -> None:
        self.depths = {Priority.INTERACTIVE: 3, Priority.BATCH: 4}


def sampler(metrics: Metrics, history: History | None = None) -> HistorySampler:
    return HistorySampler(history or History(time.monotonic, 0.0), metrics, HostState())  # type: ignore[arg-type]


def counts(metrics: Metrics) -> dict[str, float]:
    return {name: count for name, count in sampler(metrics).sample().counts.items() if count}


def test_names_are_there_before_their_first_event() -> None:
    found = sampler(Metrics("hibari")).sample().counts
    assert found["requests.speech.ok"] == found["cache.hit"] == found["jobs.failed"] == found["audioSeconds"] == 0


def test_requests_are_counted_by_kind_and_outcome() -> None:
    metrics = Metrics("hibari")
    for surface, status in [("/tts", 200), ("/v1/audio/speech", 206), ("/tts", 503), ("/queue", 202), ("other", 404)]:
        metrics.record_response(surface, status, 0.1)
    assert counts(metrics) == {
        "requests.speech.ok": 2,
        "requests.speech.refused": 1,
        "requests.jobs.ok": 1,
        "requests.other.invalid": 1,
    }


def test_what_else_is_counted() -> None:
    metrics = Metrics("hibari")
    metrics.record_audio(2.5)
    metrics.record_refusal("queue_full")
    metrics.record_cache_outcome("hit")
    metrics.record_stream_gap(0.5)
    metrics.record_job_attempt("done")
    metrics.record_webhook("given_up")
    metrics.cache_errors.inc()
    metrics.workers_lost.inc()
    metrics.background_failures("jobs").inc()
    metrics.background_failures("webhooks").inc()
    assert counts(metrics) == {
        "audioSeconds": 2.5,
        "refusals.queue_full": 1,
        "cache.hit": 1,
        "streams.gaps": 1,
        "streams.gapSeconds": 0.5,
        "jobs.done": 1,
        "webhooks.given_up": 1,
        "faults.cacheErrors": 1,
        "faults.workersLost": 1,
        "faults.taskFailures": 2,
    }


def test_levels() -> None:
    metrics = Metrics("hibari")
    metrics.connections.set(7)
    metrics.streams.inc()
    metrics.set_job_counts({"queued": 6})
    assert sampler(metrics).sample().levels == {
        "queue.interactive": 3,
        "queue.batch": 4,
        "slots.total": 5,
        "slots.busy": 3,
        "streams.running": 1,
        "connections": 7,
        "jobsKept.queued": 6,
    }


def test_whole_answers_and_streams_are_timed_apart() -> None:
    metrics = Metrics("hibari")
    metrics.record_first_byte("/tts", 0.2)
    metrics.record_response("/tts", 200, 0.2)
    metrics.record_first_byte("/tts", 0.5, streamed=True)
    metrics.record_response("/tts", 200, 9.0, streamed=True)
    metrics.record_response("/tts", 503, 0.0)
    metrics.record_response("/health", 200, 0.0)
    metrics.record_queue_wait(0.1)
    metrics.record_queue_wait(0.1, "cancelled")
    metrics.record_loop_lag(0.01)
    times = sampler(metrics).sample().times
    assert {name: sum(buckets) for name, buckets in times.items()} == dict.fromkeys(times, 1)
    answer, first_sound = percentile(times["answer"], 1.0), percentile(times["firstSound"], 1.0)
    assert answer is not None
    assert first_sound is not None
    assert answer < 0.3 < first_sound < 0.7


async def test_it_samples_again_and_again() -> None:
    metrics, history = Metrics("hibari"), History(time.monotonic, 0.0)
    running = asyncio.create_task(sampler(metrics, history).run())
    while history.last_minute is None:
        await asyncio.sleep(0.01)
    metrics.record_audio(3.0)
    while history.last_minute is not None and not history.last_minute["audioSeconds"]:
        await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
