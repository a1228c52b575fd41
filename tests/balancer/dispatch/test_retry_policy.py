from __future__ import annotations

from balancer.dispatch.retry_policy import LEAST_RESERVE, REFILL_SECONDS, RESERVE_A_SLOT, RETRIES_A_SUCCESS, RetryBudget


def spent_at(budget: RetryBudget, now: float, slots: int = 1) -> int:
    """How many retries it grants at that time."""
    granted = 0
    while budget.spend(now, slots=slots):
        granted += 1
    return granted


def test_a_reserve_is_there_from_the_start_and_ends() -> None:
    assert spent_at(RetryBudget(), 100.0) == LEAST_RESERVE


def test_a_large_fleet_may_die_as_a_whole() -> None:
    assert spent_at(RetryBudget(), 100.0, slots=192) == RESERVE_A_SLOT * 192


def test_successes_earn_retries() -> None:
    budget = RetryBudget()
    spent_at(budget, 100.0)
    for _ in range(round(3 / RETRIES_A_SUCCESS)):
        budget.earn()
    assert spent_at(budget, 100.0) == 3


def test_successes_earn_no_more_than_the_reserve() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert spent_at(budget, 100.0) == LEAST_RESERVE


def test_time_refills_the_reserve() -> None:
    budget = RetryBudget()
    spent_at(budget, 100.0)
    assert spent_at(budget, 100.0 + 4 * REFILL_SECONDS) == 4
