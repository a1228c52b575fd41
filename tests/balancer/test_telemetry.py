from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from balancer.telemetry import Telemetry


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def telemetry(clock: Clock) -> Telemetry:
    return Telemetry(clock)


def sample(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(telemetry.exposition().decode())
    values = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(values) <= 1, "these labels do not name one sample"
    return values[0] if values else None


def test_at_first_there_is_nothing_to_tell(telemetry: Telemetry) -> None:
    assert telemetry.summary(0) == {"queue_size": 0, "avg_wait_time": 0.0, "requests_per_minute": 0}


def test_the_summary(telemetry: Telemetry) -> None:
    for seconds in (1.0, 2.0, 6.0):
        telemetry.waited(seconds)
    telemetry.spoken(1.0)
    telemetry.spoken(2.0)
    assert telemetry.summary(7) == {"queue_size": 7, "avg_wait_time": 3.0, "requests_per_minute": 2}


def test_the_last_minute_counts_and_no_more(telemetry: Telemetry, clock: Clock) -> None:
    telemetry.waited(1.0)
    telemetry.spoken(1.0)
    clock.now += 30
    telemetry.waited(3.0)
    telemetry.spoken(1.0)
    clock.now += 30
    assert telemetry.summary(0) == {"queue_size": 0, "avg_wait_time": 2.0, "requests_per_minute": 2}
    clock.now += 0.001
    assert telemetry.summary(0) == {"queue_size": 0, "avg_wait_time": 3.0, "requests_per_minute": 1}
    clock.now += 30
    assert telemetry.summary(0) == {"queue_size": 0, "avg_wait_time": 0.0, "requests_per_minute": 0}


@pytest.mark.parametrize("event", ["waited", "spoken"])
def test_what_is_long_past_is_forgotten_without_being_asked(telemetry: Telemetry, clock: Clock, event: str) -> None:
    for _ in range(1000):
        getattr(telemetry, event)(1.0)
        clock.now += 1.0
    assert len(telemetry._waits) + len(telemetry._requests) <= 61


def test_counters_never_forget(telemetry: Telemetry, clock: Clock) -> None:
    telemetry.spoken(2.5)
    telemetry.waited(0.2)
    clock.now += 3600
    telemetry.spoken(1.5)
    assert sample(telemetry, "chorus_audio_seconds_total") == 4.0
    assert sample(telemetry, "chorus_queue_wait_seconds_count") == 1.0
    assert sample(telemetry, "chorus_queue_wait_seconds_sum") == 0.2


def test_answers_are_counted_by_surface_and_status(telemetry: Telemetry) -> None:
    telemetry.answered("/tts", 200, 0.3)
    telemetry.answered("/tts", 200, 0.5)
    telemetry.answered("/tts", 503, 0.001)
    telemetry.answered("other", 404, 0.001)
    assert sample(telemetry, "chorus_requests_total", surface="/tts", status="200") == 2.0
    assert sample(telemetry, "chorus_requests_total", surface="/tts", status="503") == 1.0
    assert sample(telemetry, "chorus_requests_total", surface="other", status="404") == 1.0
    assert sample(telemetry, "chorus_request_seconds_count", surface="/tts") == 3.0
    assert sample(telemetry, "chorus_request_seconds_bucket", surface="/tts", le="0.25") == 1.0


def test_two_servers_in_one_process_count_apart(telemetry: Telemetry) -> None:
    other = Telemetry()
    telemetry.retries.inc()
    assert sample(telemetry, "chorus_retries_total") == 1.0
    assert sample(other, "chorus_retries_total") == 0.0
