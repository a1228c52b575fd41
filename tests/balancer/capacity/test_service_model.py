import numpy as np
import pytest

from balancer.capacity.service_model import Level, ServiceModel
from balancer.capacity.step import StepTotals


def level(clients: int, service: dict[int, float], overhead: float, *, slots_used: float, queue: float = 0.0) -> Level:
    """Requests of these characters, whose utterances take so many seconds."""
    characters, seconds = tuple(service), tuple(service.values())
    return Level(
        clients=clients,
        seconds=sum(seconds) / slots_used,
        characters=characters,
        latencies=tuple(time + overhead + queue for time in seconds),
        audio_seconds=0.06 * sum(characters),
        totals=StepTotals(utterances=len(service), synthesis_seconds=sum(seconds), queue_seconds=queue * len(service)),
    )


def test_the_times_are_those_that_were_measured() -> None:
    alone = level(1, {length: 0.1 + 0.01 * length for length in range(20, 200, 5)}, 0.02, slots_used=1)
    full = level(8, {length: 0.2 + 0.02 * length for length in range(20, 200, 5)}, 0.05, slots_used=4, queue=0.7)
    model = ServiceModel.of([alone, full], 4, balancer_seconds=0.001)
    assert model.expected(100) == pytest.approx(1.1)
    assert model.slowdown_at(0.25) == pytest.approx(1)
    assert model.slowdown_at(1.0) == pytest.approx(2)
    assert model.slowdown_at(0.625) == pytest.approx(1.5)
    assert model.overhead_at(0.25) == pytest.approx(0.02)
    assert model.overhead_at(1.0) == pytest.approx(0.05)
    assert model.audio_per_character == pytest.approx(0.06)
    assert np.mean(model.spread) == pytest.approx(1, abs=1e-3)


def test_texts_of_one_length_tell_a_time_that_does_not_depend_on_it() -> None:
    model = ServiceModel.of([level(1, {50: 0.3}, 0.0, slots_used=1)], 1, 0.0)
    assert model.expected(10) == model.expected(500) == pytest.approx(0.3)
