from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from balancer.scheduling.cost_model import MAX_DEVIATION, SMOOTHING, CostModel
from worker.cards import CARDS

CARD = CARDS["hibari"]


@pytest.fixture
def costs() -> CostModel:
    return CostModel(CARD)


def teach(costs: CostModel, times: int, *, worker: str = "0:1", **cost: Any) -> None:
    for _ in range(times):
        costs.learn(worker, **({"characters": 100, "audio_seconds": 6.0, "compute_seconds": 0.1} | cost))


def test_the_first_estimates_are_those_of_the_card(costs: CostModel) -> None:
    assert costs.audio_seconds(1000) == pytest.approx(1000 * CARD.seconds_per_character)
    assert costs.speed("0:1") == pytest.approx(CARD.speed)


def test_estimates_converge_to_the_observed_costs(costs: CostModel) -> None:
    teach(costs, 200, audio_seconds=9.0, compute_seconds=0.3)
    assert costs.audio_seconds(100) == pytest.approx(9.0, rel=0.01)
    assert costs.speed("0:1") == pytest.approx(30.0, rel=0.02)


def test_the_first_utterances_count_as_much_as_the_card(costs: CostModel) -> None:
    """On a host of another speed than the card's, the estimates are right within some utterances."""
    teach(costs, 4, audio_seconds=10.0, compute_seconds=0.1)
    expected = (4 * 10.0 + 100 * CARD.seconds_per_character) / 5
    assert costs.audio_seconds(100) == pytest.approx(expected)


def test_each_worker_has_its_own_speed(costs: CostModel) -> None:
    teach(costs, 200, worker="0:1", compute_seconds=0.1)
    teach(costs, 200, worker="1:2", compute_seconds=0.3)
    assert costs.speed("0:1") / costs.speed("1:2") == pytest.approx(3.0, rel=0.05)


def test_the_capacity_is_the_most_that_was_measured_with_as_many_slots_or_fewer(costs: CostModel) -> None:
    assert costs.capacity(4) == pytest.approx(4 * CARD.speed)
    teach(costs, 200, audio_seconds=5.0, compute_seconds=0.1, used=1)
    assert costs.capacity(1) == pytest.approx(50.0)
    assert costs.capacity(4) == pytest.approx(4 * CARD.speed), "what a slot makes alone tells little of four"
    teach(costs, 200, audio_seconds=5.0, compute_seconds=0.2, used=4)
    assert costs.capacity(4) == pytest.approx(100.0)
    teach(costs, 200, audio_seconds=5.0, compute_seconds=0.5, used=8)
    assert costs.capacity(8) == pytest.approx(100.0), "four are as many as this host needs"
    assert costs.capacity(1) == pytest.approx(50.0)


def test_a_new_worker_gets_the_speed_of_the_fleet(costs: CostModel) -> None:
    teach(costs, 200, compute_seconds=0.3)
    assert costs.speed("1:2") == pytest.approx(costs.speed("0:1"), rel=0.01)


def test_a_worker_that_is_gone_is_forgotten(costs: CostModel) -> None:
    teach(costs, 200, worker="0:1", compute_seconds=0.1)
    teach(costs, 200, worker="1:2", compute_seconds=0.3)
    costs.forget("0:1")
    assert costs.speed("0:1") == pytest.approx(costs.speed("1:2"), rel=0.1)
    costs.forget("never known")


def test_a_long_text_has_the_weight_of_its_length(costs: CostModel) -> None:
    """Of one utterance of 10,000 characters and one of 100, the long one decides."""
    teach(costs, 400)
    teach(costs, 1, characters=10_000, audio_seconds=1200.0)
    teach(costs, 1, characters=100, audio_seconds=6.0)
    assert costs.audio_seconds(100) > 10


def test_one_outlier_has_little_effect(costs: CostModel) -> None:
    teach(costs, 200)
    before = costs.speed("0:1")
    teach(costs, 1, compute_seconds=1.0)
    share = SMOOTHING * (1.0 - 0.1) / (0.1 + SMOOTHING * (1.0 - 0.1))
    assert costs.speed("0:1") == pytest.approx(before * (1 - share), rel=0.01)


@pytest.mark.parametrize("compute_seconds", [1e-9, 1e9])
def test_estimates_stay_near_the_card(costs: CostModel, compute_seconds: float) -> None:
    teach(costs, 500, compute_seconds=compute_seconds)
    assert CARD.speed / MAX_DEVIATION <= costs.speed("0:1") <= CARD.speed * MAX_DEVIATION


@pytest.mark.parametrize("field", ["characters", "audio_seconds", "compute_seconds"])
@pytest.mark.parametrize("value", [0, -1, inf, nan])
def test_impossible_costs_are_ignored(costs: CostModel, field: str, value: Any) -> None:
    teach(costs, 5)
    before = costs.audio_seconds(100), costs.speed("0:1")
    cost: dict[str, Any] = {field: value}
    teach(costs, 1, **cost)
    assert (costs.audio_seconds(100), costs.speed("0:1")) == before
