from __future__ import annotations

from itertools import pairwise

from balancer.scheduling.queued_utterance import AttemptId


def test_a_worker_is_given_another_id_for_every_attempt() -> None:
    first = AttemptId("u")
    second = first.retry()
    third = second.retry()
    ids = [str(attempt_id) for attempt in (first, second, third) for attempt_id in (attempt, attempt.hedged())]
    assert ids == ["u", "u+", "u.1", "u.1+", "u.2", "u.2+"]


def test_attempts_of_an_utterance_are_ordered() -> None:
    first = AttemptId("u")
    attempts = [first, first.hedged(), first.retry(), first.retry().hedged()]
    assert all(one < other for one, other in pairwise(attempts))
    assert len(set(attempts)) == len(attempts)
