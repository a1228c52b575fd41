from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from balancer.fleet.view import WorkerView
from balancer.metrics import Metrics, outcome_of
from balancer.operations.fleet_collector import FleetCollector
from balancer.operations.process_cpu import ProcessCpu
from balancer.scheduling.priority import Priority
from tests.support.clock import Clock
from tests.support.harness import ROOT


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics("hibari", clock)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(metrics.exposition().decode())
    values = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(values) <= 1, "these labels do not name one sample"
    return values[0] if values else None


def test_the_summary_starts_at_zero(metrics: Metrics) -> None:
    assert metrics.summary(0) == {"queue_size": 0, "avg_wait_time": 0.0, "requests_per_minute": 0}


def test_the_summary(metrics: Metrics) -> None:
    for seconds in (1.0, 2.0, 6.0):
        metrics.record_queue_wait(seconds)
    metrics.record_audio(1.0)
    metrics.record_audio(2.0)
    assert metrics.summary(7) == {"queue_size": 7, "avg_wait_time": 3.0, "requests_per_minute": 2}


def test_the_summary_covers_the_last_minute_only(metrics: Metrics, clock: Clock) -> None:
    metrics.record_queue_wait(1.0)
    metrics.record_audio(1.0)
    clock.now += 30
    metrics.record_queue_wait(3.0)
    metrics.record_audio(1.0)
    clock.now += 30
    assert metrics.summary(0) == {"queue_size": 0, "avg_wait_time": 2.0, "requests_per_minute": 2}
    clock.now += 0.001
    assert metrics.summary(0) == {"queue_size": 0, "avg_wait_time": 3.0, "requests_per_minute": 1}
    clock.now += 30
    assert metrics.summary(0) == {"queue_size": 0, "avg_wait_time": 0.0, "requests_per_minute": 0}


@pytest.mark.parametrize("event", ["record_queue_wait", "record_audio"])
def test_old_events_are_dropped_as_new_ones_arrive(metrics: Metrics, clock: Clock, event: str) -> None:
    for _ in range(1000):
        getattr(metrics, event)(1.0)
        clock.now += 1.0
    assert len(metrics._recent_waits) + len(metrics._recent_requests) <= 61


def test_counters_keep_their_totals(metrics: Metrics, clock: Clock) -> None:
    metrics.record_audio(2.5)
    metrics.record_queue_wait(0.2)
    clock.now += 3600
    metrics.record_audio(1.5)
    assert sample(metrics, "chorus_audio_seconds_total") == 4.0
    assert sample(metrics, "chorus_queue_wait_seconds_count") == 1.0
    assert sample(metrics, "chorus_queue_wait_seconds_sum") == 0.2


def test_responses_are_counted_by_surface_and_status(metrics: Metrics) -> None:
    metrics.record_response("/tts", 200, 0.3)
    metrics.record_response("/tts", 200, 0.5)
    metrics.record_response("/tts", 503, 0.001)
    metrics.record_response("other", 404, 0.001)
    assert sample(metrics, "chorus_requests_total", surface="/tts", status="200") == 2.0
    assert sample(metrics, "chorus_requests_total", surface="/tts", status="503") == 1.0
    assert sample(metrics, "chorus_requests_total", surface="other", status="404") == 1.0
    assert sample(metrics, "chorus_request_seconds_count", surface="/tts", outcome="ok", engine="hibari") == 2.0
    assert sample(metrics, "chorus_request_seconds_bucket", surface="/tts", outcome="refused", le="0.25") == 1.0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (304, "ok"),
        (400, "invalid"),
        (429, "refused"),
        (503, "refused"),
        (499, "gone"),
        (500, "failed"),
        (504, "failed"),
        (0, "failed"),
    ],
)
def test_outcome_of_a_status(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


def test_attempts_are_timed_by_outcome_and_only_complete_ones_have_a_real_time_factor(metrics: Metrics) -> None:
    metrics.record_attempt("ok", 0.5, 10.0)
    metrics.record_attempt("lost", 0.5, 0.0)
    assert sample(metrics, "chorus_synthesis_seconds_count", engine="hibari", outcome="ok") == 1.0
    assert sample(metrics, "chorus_synthesis_seconds_count", engine="hibari", outcome="lost") == 1.0
    assert sample(metrics, "chorus_real_time_factor_count", engine="hibari") == 1.0
    assert sample(metrics, "chorus_real_time_factor_sum", engine="hibari") == 0.05


@pytest.mark.parametrize(
    ("histogram", "bounds"),
    [
        ("chorus_loop_lag_seconds", {"0.001", "0.02", "1.0"}),
        ("chorus_real_time_factor", {"0.005", "1.0", "20.0"}),
    ],
)
def test_buckets_include_the_documented_limits(metrics: Metrics, histogram: str, bounds: set[str]) -> None:
    metrics.record_attempt("ok", 1.0, 1.0)
    for bound in bounds:
        assert sample(metrics, f"{histogram}_bucket", le=bound) is not None


def test_a_cancelled_wait_does_not_count_in_the_summary(metrics: Metrics) -> None:
    metrics.record_queue_wait(9.0, "cancelled")
    metrics.record_queue_wait(1.0)
    assert metrics.summary(0)["avg_wait_time"] == 1.0
    assert sample(metrics, "chorus_queue_wait_seconds_sum", outcome="cancelled") == 9.0


def test_failures_are_counted_by_reason(metrics: Metrics) -> None:
    metrics.record_refusal("queue_full")
    metrics.record_cancellation("running")
    metrics.record_wasted_seconds("worker_lost", 1.5)
    metrics.record_wasted_seconds("worker_lost", 1.0)
    assert sample(metrics, "chorus_refusals_total", reason="queue_full") == 1.0
    assert sample(metrics, "chorus_cancellations_total", stage="running") == 1.0
    assert sample(metrics, "chorus_wasted_seconds_total", reason="worker_lost") == 2.5


def test_the_first_byte(metrics: Metrics) -> None:
    metrics.record_first_byte("/tts", 0.2)
    assert sample(metrics, "chorus_first_byte_seconds_bucket", surface="/tts", le="0.25") == 1.0


def test_the_process_of_the_balancer_is_measured(metrics: Metrics) -> None:
    assert (sample(metrics, "process_resident_memory_bytes") or 0) > 2**20
    assert (sample(metrics, "process_open_fds") or 0) > 2


def test_the_documentation_lists_exactly_the_existing_metrics(metrics: Metrics) -> None:
    metrics.registry.register(FleetCollector(_Idle(), ProcessCpu()))  # type: ignore[arg-type]
    families = {family.name for family in text_string_to_metric_families(metrics.exposition().decode())}
    ours = {name for name in families if name.startswith("chorus_") and not name.endswith("_created")}
    listed = set(re.findall(r"`(chorus_\w+)", (ROOT / "docs/metrics.md").read_text()))
    documented = {name.removesuffix("_total").removesuffix("_bucket").removesuffix("_count") for name in listed}
    assert documented == ours


class _Idle:
    """The state of a host without workers, as far as FleetCollector needs it."""

    depths = dict.fromkeys(Priority, 0)
    slots = free_slots = 0
    draining = False

    def workers(self) -> list[WorkerView]:
        return []


def test_two_instances_count_separately(metrics: Metrics) -> None:
    other = Metrics("hibari")
    metrics.retries.inc()
    assert sample(metrics, "chorus_retries_total") == 1.0
    assert sample(other, "chorus_retries_total") == 0.0
