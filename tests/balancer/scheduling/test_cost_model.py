from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from balancer.scheduling.cost_model import SMOOTHING, WIDEST, CostModel
from worker.cards import CARDS

CARD = CARDS["hibari"]


@pytest.fixture
def costs() -> CostModel:
    return CostModel(CARD)


def teach(costs: CostModel, times: int, *, worker: str = "0:1", **cost: Any) -> None:
    for _ in range(times):
        costs.learn(worker, **({"characters": 100, "audio_seconds": 6.0, "compute_seconds": 0.1} | cost))


def test_before_anything_is_known_the_card_is_believed(costs: CostModel) -> None:
    assert costs.audio_seconds(1000) == pytest.approx(1000 * CARD.seconds_per_character)
    assert costs.speed("0:1") == pytest.approx(CARD.speed)


def test_it_comes_to_believe_what_it_sees(costs: CostModel) -> None:
    teach(costs, 200, audio_seconds=9.0, compute_seconds=0.3)
    assert costs.audio_seconds(100) == pytest.approx(9.0, rel=0.01)
    assert costs.speed("0:1") == pytest.approx(30.0, rel=0.02)


def test_workers_have_speeds_of_their_own(costs: CostModel) -> None:
    teach(costs, 200, worker="0:1", compute_seconds=0.1)
    teach(costs, 200, worker="1:2", compute_seconds=0.3)
    assert costs.speed("0:1") / costs.speed("1:2") == pytest.approx(3.0, rel=0.05)


def test_a_new_worker_is_believed_to_be_like_the_others(costs: CostModel) -> None:
    teach(costs, 200, compute_seconds=0.3)
    assert costs.speed("1:2") == pytest.approx(costs.speed("0:1"), rel=0.01)


def test_a_worker_that_is_gone_is_forgotten(costs: CostModel) -> None:
    teach(costs, 200, worker="0:1", compute_seconds=0.1)
    teach(costs, 200, worker="1:2", compute_seconds=0.3)
    costs.forget("0:1")
    assert costs.speed("0:1") == pytest.approx(costs.speed("1:2"), rel=0.1)
    costs.forget("never known")


def test_a_long_text_counts_for_as_much_as_it_says(costs: CostModel) -> None:
    """Of one utterance of 10,000 characters and one of 100, the long one decides."""
    teach(costs, 400)
    teach(costs, 1, characters=10_000, audio_seconds=1200.0)
    teach(costs, 1, characters=100, audio_seconds=6.0)
    assert costs.audio_seconds(100) > 10


def test_one_freak_moves_little(costs: CostModel) -> None:
    teach(costs, 200)
    before = costs.speed("0:1")
    teach(costs, 1, compute_seconds=1.0)
    share = SMOOTHING * (1.0 - 0.1) / (0.1 + SMOOTHING * (1.0 - 0.1))
    assert costs.speed("0:1") == pytest.approx(before * (1 - share), rel=0.01)


@pytest.mark.parametrize("compute_seconds", [1e-9, 1e9])
def test_estimates_stay_near_the_card(costs: CostModel, compute_seconds: float) -> None:
    teach(costs, 500, compute_seconds=compute_seconds)
    assert CARD.speed / WIDEST <= costs.speed("0:1") <= CARD.speed * WIDEST


@pytest.mark.parametrize("field", ["characters", "audio_seconds", "compute_seconds"])
@pytest.mark.parametrize("value", [0, -1, inf, nan])
def test_what_says_nothing_is_not_learnt(costs: CostModel, field: str, value: Any) -> None:
    teach(costs, 5)
    before = costs.audio_seconds(100), costs.speed("0:1")
    cost: dict[str, Any] = {field: value}
    teach(costs, 1, **cost)
    assert (costs.audio_seconds(100), costs.speed("0:1")) == before
