"""The order of work: who is served first, on a clock that stands still unless it is set."""

from __future__ import annotations

import pytest

from tests.support.real_worker import utterance
from worker.engines.chatterbox.work_order import WHOLE_ANSWER_SECONDS, Work, WorkOrder


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def order(clock: Clock) -> WorkOrder:
    return WorkOrder(clock)


def arrive(order: WorkOrder, playout_deadline: float | None = None) -> Work:
    return order.arrive(utterance(playout_deadline=playout_deadline))


def queued(order: WorkOrder, playout_deadline: float | None = None) -> Work:
    work = arrive(order, playout_deadline)
    order.begin_s3gen(work)
    return work


def served(order: WorkOrder) -> list[Work]:
    """The utterances of S3Gen's queue in the order in which they are served."""
    found = []
    while order.s3gen_queue:
        [work] = [work for work in order.s3gen_queue if order.s3gen_is_next(work)]
        order.end_s3gen(work)
        found.append(work)
    return found


def test_whole_answers_are_made_in_the_order_of_their_tokens_end(order: WorkOrder, clock: Clock) -> None:
    works = [queued(order) for _ in range(3)]
    clock.now += 60
    works += [queued(order) for _ in range(2)]
    order.begin_decode(arrive(order))
    assert not order.decode_is_next, "S3Gen goes before decoding"
    assert served(order) == works
    assert order.decode_is_next


def test_the_listener_who_runs_dry_soonest_is_served_first(order: WorkOrder) -> None:
    whole, late, soon, nothing_heard = (queued(order, deadline) for deadline in (None, 4.0, 2.0, 0.0))
    assert served(order) == [nothing_heard, soon, late, whole]


def test_audio_that_was_sent_puts_a_listener_back(order: WorkOrder, clock: Clock) -> None:
    first, second = queued(order, 0.0), queued(order, 0.0)
    assert order.s3gen_is_next(first)
    clock.now += 3
    order.sent(first, 1.0)
    assert first.due == clock.now + 1.0, "it begins to play now"
    assert order.s3gen_is_next(second)
    order.sent(first, 2.0)
    assert first.due == clock.now + 3.0, "it plays on"


def test_a_whole_answer_does_not_wait_for_listeners_without_end(order: WorkOrder, clock: Clock) -> None:
    whole = queued(order)
    clock.now += WHOLE_ANSWER_SECONDS - 0.1
    early = queued(order, 0.0)
    clock.now += 0.2
    late = queued(order, 0.0)
    assert served(order) == [early, whole, late]


def test_decoding_goes_first_for_a_listener_who_is_due_before_all_that_wait_for_s3gen(order: WorkOrder) -> None:
    whole = queued(order)
    order.begin_decode(arrive(order))
    assert order.s3gen_is_next(whole)
    listener = arrive(order, 0.0)
    order.begin_decode(listener)
    assert order.decode_is_next
    assert not order.s3gen_is_next(whole)
    order.begin_s3gen(listener)
    assert not order.decode_is_next
    assert order.s3gen_is_next(listener)
    order.end_s3gen(listener)
    order.end_decode(listener)
    assert order.s3gen_is_next(whole)


def test_a_whole_answer_that_decodes_again_is_not_due(order: WorkOrder, clock: Clock) -> None:
    again = queued(order)
    order.end_s3gen(again)
    order.begin_decode(again)
    clock.now += 60
    other = queued(order)
    assert order.s3gen_is_next(other)
