from __future__ import annotations

from balancer.dispatch.retry_policy import (
    MIN_RESERVE,
    REFILL_SECONDS,
    RESERVE_PER_SLOT,
    RETRIES_PER_SUCCESS,
    RetryBudget,
)


def spent_at(budget: RetryBudget, now: float, slots: int = 1) -> int:
    """The number of retries that the budget grants at that time."""
    granted = 0
    while budget.spend(now, slots=slots):
        granted += 1
    return granted


def test_the_reserve_is_there_from_the_start_and_limited() -> None:
    assert spent_at(RetryBudget(), 100.0) == MIN_RESERVE


def test_the_reserve_grows_with_the_slots() -> None:
    assert spent_at(RetryBudget(), 100.0, slots=192) == RESERVE_PER_SLOT * 192


def test_successes_earn_retries() -> None:
    budget = RetryBudget()
    spent_at(budget, 100.0)
    for _ in range(round(3 / RETRIES_PER_SUCCESS)):
        budget.earn()
    assert spent_at(budget, 100.0) == 3


def test_successes_earn_no_more_than_the_reserve() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert spent_at(budget, 100.0) == MIN_RESERVE


def test_time_refills_the_reserve() -> None:
    budget = RetryBudget()
    spent_at(budget, 100.0)
    assert spent_at(budget, 100.0 + 4 * REFILL_SECONDS) == 4
