"""The decisions of the retry policy, without processes."""

from __future__ import annotations

import pytest

from balancer.dispatch.retry_policy import (
    CRASH_WINDOW_SECONDS,
    MAX_STRIKES,
    MIN_RESERVE,
    POISON_THRESHOLD,
    REFILL_SECONDS,
    RESERVE_PER_SLOT,
    RETRIES_PER_SUCCESS,
    CrashWindow,
    RetryBudget,
    RetryDecision,
    RetryPolicy,
)

NOW = 100.0
RETRY, POISONED, SUSPENDED = RetryDecision.RETRY, RetryDecision.POISONED, RetryDecision.SUSPENDED


def decide(policy: RetryPolicy, strikes: int, now: float = NOW) -> RetryDecision:
    """The decision on an utterance whose first so many workers have crashed: w0, w1, and so on."""
    return policy.decide([f"w{number}" for number in range(strikes)], now, slots=1)


def policy_after(*crashed: str, now: float = NOW) -> RetryPolicy:
    policy = RetryPolicy()
    for worker in crashed:
        policy.record_crash(worker, now)
    return policy


@pytest.mark.parametrize("strikes", range(POISON_THRESHOLD))
def test_below_the_threshold_an_utterance_is_retried(strikes: int) -> None:
    assert decide(policy_after("w0"), strikes) is RETRY


@pytest.mark.parametrize("strikes", [POISON_THRESHOLD, POISON_THRESHOLD + 1])
def test_at_the_threshold_an_utterance_is_poisoned(strikes: int) -> None:
    assert decide(policy_after("w0", "w1"), strikes) is POISONED


def test_timeouts_are_strikes_although_no_worker_crashed() -> None:
    assert decide(RetryPolicy(), POISON_THRESHOLD) is POISONED


def test_a_worker_that_times_out_twice_gives_two_strikes() -> None:
    assert RetryPolicy().decide(["w0", "w0"], NOW, slots=1) is POISONED


@pytest.mark.parametrize("strikes", range(POISON_THRESHOLD, MAX_STRIKES))
def test_where_as_many_other_workers_crash_an_utterance_is_retried(strikes: int) -> None:
    others = [f"other{number}" for number in range(strikes)]
    assert decide(policy_after("w0", "w1", *others), strikes) is RETRY
    assert decide(policy_after("w0", "w1", *others[1:]), strikes) is POISONED, "one fewer is not enough"


def test_at_the_maximum_an_utterance_is_poisoned_whatever_else_crashes() -> None:
    others = [f"other{number}" for number in range(10 * MAX_STRIKES)]
    assert decide(policy_after(*others), MAX_STRIKES - 1) is RETRY
    assert decide(policy_after(*others), MAX_STRIKES) is POISONED


def test_other_crashes_count_only_within_the_window() -> None:
    policy = policy_after("other0", "other1")
    assert decide(policy, POISON_THRESHOLD, NOW + CRASH_WINDOW_SECONDS) is RETRY
    assert decide(policy, POISON_THRESHOLD, NOW + CRASH_WINDOW_SECONDS + 0.1) is POISONED


def exhausted() -> RetryPolicy:
    policy = RetryPolicy()
    assert [decide(policy, 1) for _ in range(MIN_RESERVE)] == [RETRY] * MIN_RESERVE
    return policy


def test_without_budget_retries_are_suspended() -> None:
    policy = exhausted()
    assert decide(policy, 0) is SUSPENDED
    assert decide(policy, 1) is SUSPENDED


def test_a_poisoned_utterance_is_poisoned_without_budget_too() -> None:
    assert decide(exhausted(), POISON_THRESHOLD) is POISONED


def test_a_poisoned_utterance_takes_no_retry_from_the_budget() -> None:
    policy = RetryPolicy()
    for _ in range(10 * MIN_RESERVE):
        assert decide(policy, POISON_THRESHOLD) is POISONED
    assert decide(policy, 1) is RETRY


def test_successes_and_time_end_the_suspension() -> None:
    policy = exhausted()
    for _ in range(round(1 / RETRIES_PER_SUCCESS)):
        policy.record_success()
    assert [decide(policy, 1), decide(policy, 1)] == [RETRY, SUSPENDED]
    later = NOW + REFILL_SECONDS
    assert [decide(policy, 1, later), decide(policy, 1, later)] == [RETRY, SUSPENDED]


def test_a_failure_of_the_engine_is_retried_once_within_the_budget() -> None:
    policy = RetryPolicy()
    assert policy.retries_failure(["w0"], NOW, slots=1)
    assert not policy.retries_failure(["w0", "w1"], NOW, slots=1)
    assert not exhausted().retries_failure(["w0"], NOW, slots=1)


def test_a_failure_counts_as_a_strike_beside_a_crash() -> None:
    assert decide(RetryPolicy(), 2) is POISONED
    assert not RetryPolicy().retries_failure(["crashed", "failed"], NOW, slots=1)


def test_a_new_crash_window_is_empty() -> None:
    assert CrashWindow().others(set(), 100.0) == 0


def test_the_given_workers_do_not_count_and_others_do() -> None:
    crashes = CrashWindow()
    for number, worker in enumerate(("0:1", "1:2", "0:3")):
        crashes.record(worker, 100.0 + number)
    assert crashes.others({"0:1"}, 103.0) == 2
    assert crashes.others({"0:1", "1:2", "0:3"}, 103.0) == 0


def test_old_crashes_do_not_count() -> None:
    crashes = CrashWindow()
    crashes.record("0:1", 100.0)
    assert crashes.others(set(), 100.0 + CRASH_WINDOW_SECONDS) == 1
    assert crashes.others(set(), 100.1 + CRASH_WINDOW_SECONDS) == 0


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
