"""The order of one queue: rounds of callers, ranks within them, and the bounds on how far anyone is overtaken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.scheduling.fair_queue import PLAYOUT_SLACK_DURATIONS, FairQueue
from balancer.scheduling.queued_utterance import NOTHING_HEARD, AttemptId, QueuedUtterance, Terms

DURATIONS = st.sampled_from([0.25, 0.5, 1.0, 4.0, 16.0])


def add(
    queue: FairQueue,
    name: str,
    *,
    now: float,
    duration: float = 1.0,
    caller: str = "",
    by: float | None = None,
    playout_deadline: float | None = None,
) -> None:
    terms = Terms(caller, deadline=by, playout_deadline=playout_deadline)
    queue.add(QueuedUtterance(AttemptId(name), duration, terms), duration=duration, now=now)


def emptied(queue: FairQueue, now: float = 0.0) -> list[str]:
    return [queue.pop(now).attempt_id.utterance for _ in range(len(queue))]


def test_without_a_window_the_order_is_that_of_arrival() -> None:
    queue = FairQueue(sjf_window=0)
    for number, duration in enumerate((16.0, 1.0, 4.0)):
        add(queue, f"t{number}", now=number, duration=duration)
    assert emptied(queue) == ["t0", "t1", "t2"]


def test_equal_ranks_keep_the_order_of_arrival() -> None:
    queue = FairQueue(sjf_window=4)
    for number in range(5):
        add(queue, f"t{number}", now=0.0)
    assert emptied(queue) == ["t0", "t1", "t2", "t3", "t4"]


def test_a_short_utterance_overtakes_a_long_one_that_came_a_little_earlier() -> None:
    queue = FairQueue(sjf_window=4)
    add(queue, "long", now=0.0, duration=10.0)  # rank 40
    add(queue, "short", now=35.0, duration=1.0)  # rank 39
    add(queue, "late", now=37.0, duration=1.0)  # rank 41
    assert emptied(queue) == ["short", "long", "late"]


def test_callers_take_turns_however_many_utterances_they_have() -> None:
    queue = FairQueue(sjf_window=0)
    for number in range(4):
        add(queue, f"a{number}", now=number, caller="a")
    add(queue, "b0", now=4.0, caller="b")
    add(queue, "c0", now=5.0, caller="c")
    assert emptied(queue) == ["a0", "b0", "c0", "a1", "a2", "a3"]


def test_a_caller_that_comes_during_a_round_waits_for_the_next() -> None:
    queue = FairQueue(sjf_window=0)
    for caller in "abc":
        add(queue, f"{caller}0", now=0.0, caller=caller)
        add(queue, f"{caller}1", now=0.0, caller=caller)
    assert queue.pop(0.0).attempt_id.utterance == "a0"
    add(queue, "d0", now=1.0, caller="d")
    assert emptied(queue) == ["b0", "c0", "a1", "b1", "c1", "d0"]


def test_removing_an_utterance_gives_no_second_turn() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "a0", now=0.0, caller="a")
    add(queue, "b0", now=0.0, caller="b")
    queue.remove(AttemptId("a0"))
    queue.remove(AttemptId("not there"))
    add(queue, "a1", now=1.0, caller="a")
    assert AttemptId("a0") not in queue
    assert emptied(queue) == ["b0", "a1"]


def test_a_deadline_goes_before_a_sibling_that_can_wait() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "patient", now=0.0, duration=2.0)
    add(queue, "pressed", now=0.0, duration=1.0, by=2.5)  # behind the patient one it would be done at 3
    assert emptied(queue) == ["pressed", "patient"]


def test_a_deadline_that_can_be_met_behind_its_sibling_changes_nothing() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "first", now=0.0, duration=2.0)
    add(queue, "second", now=0.0, duration=1.0, by=3.0)
    assert emptied(queue) == ["first", "second"]


def test_a_deadline_that_is_lost_already_changes_nothing() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "first", now=0.0)
    add(queue, "lost", now=0.0, by=0.5)
    assert emptied(queue) == ["first", "lost"]


def test_the_earlier_latest_start_goes_first() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "first", now=0.0, duration=2.0, by=2.5)
    add(queue, "second", now=0.0, duration=1.0, by=1.2)
    assert queue.pop(0.0).attempt_id.utterance == "second"


def test_deadlines_never_preempt_twice_in_a_row() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "patient", now=0.0, duration=10.0)
    for number in range(3):
        add(queue, f"pressed{number}", now=0.0, duration=1.0, by=5.0)
    assert emptied(queue) == ["pressed0", "patient", "pressed1", "pressed2"]


def test_beginnings_go_first_then_what_is_to_be_heard_soonest_then_whole_answers() -> None:
    queue = FairQueue(sjf_window=0)
    for caller, playout_deadline in (("a", None), ("b", 12.0), ("c", 11.0), ("d", NOTHING_HEARD)):
        add(queue, caller, now=10.0, caller=caller, playout_deadline=playout_deadline)
    assert emptied(queue, 10.0) == ["d", "c", "b", "a"]


def test_what_is_heard_later_is_in_no_hurry_until_it_is() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "ahead", now=0.0, playout_deadline=60.0)
    add(queue, "whole", now=1.0)
    assert queue.pop(1.0).attempt_id.utterance == "whole"
    add(queue, "second", now=2.0)
    add(queue, "third", now=56.0)
    assert emptied(queue, 57.5) == ["ahead", "second", "third"]


def test_listeners_never_preempt_whole_answers_twice_in_a_row() -> None:
    queue = FairQueue(sjf_window=0)
    for number in range(3):
        add(queue, f"whole{number}", now=0.0)
    for number in range(3):
        add(queue, f"heard{number}", now=1.0, playout_deadline=NOTHING_HEARD)
    assert emptied(queue, 2.0) == ["heard0", "whole0", "heard1", "whole1", "heard2", "whole2"]


def test_a_caller_with_listeners_has_one_turn_in_each_round() -> None:
    queue = FairQueue(sjf_window=0)
    add(queue, "a0", now=0.0, caller="a")
    for number in range(3):
        add(queue, f"b{number}", now=1.0, caller="b", playout_deadline=NOTHING_HEARD)
    assert emptied(queue, 2.0) == ["b0", "a0", "b1", "b2"]


def test_a_listener_may_join_later() -> None:
    queue = FairQueue(sjf_window=0)
    for name in ("t0", "t1", "t2"):
        add(queue, name, now=0.0)
    queue.listen(AttemptId("t2"), 3.0)
    queue.listen(AttemptId("t2"), 5.0)
    assert queue[AttemptId("t2")].terms.playout_deadline == 3.0
    assert emptied(queue, 1.0) == ["t2", "t0", "t1"]


def test_the_oldest_goes_by_arrival_not_by_rank() -> None:
    queue = FairQueue(sjf_window=4)
    assert queue.oldest_arrival() is None
    add(queue, "long", now=1.0, duration=100.0)
    add(queue, "short", now=2.0)
    assert queue.oldest_arrival() == 1.0
    queue.remove(AttemptId("long"))
    assert queue.oldest_arrival() == 2.0


def test_popping_an_empty_queue_raises() -> None:
    with pytest.raises(ValueError, match="empty"):
        FairQueue(sjf_window=0).pop(0.0)


@dataclass(frozen=True)
class Arrival:
    after: float
    duration: float
    caller: str
    pops: int
    """Utterances taken out before it arrives."""


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        after=st.sampled_from([0.0, 0.5, 2.0]),
        duration=DURATIONS,
        caller=st.sampled_from("abc"),
        pops=st.integers(0, 2),
    ),
    max_size=30,
)


PLAYOUT_DEADLINES = st.lists(st.sampled_from([None, NOTHING_HEARD, 1.0, 20.0]), min_size=30, max_size=30)
"""Playout deadlines of the arrivals."""


@given(ARRIVALS, PLAYOUT_DEADLINES, st.sampled_from([0.0, 1.0, 4.0]))
def test_no_utterance_is_lost_or_returned_twice(
    arrivals: list[Arrival], deadlines: list[float | None], sjf_window: float
) -> None:
    queue = FairQueue(sjf_window)
    now, left = 0.0, []
    for number, arrival in enumerate(arrivals):
        now += arrival.after
        left += [queue.pop(now).attempt_id.utterance for _ in range(min(arrival.pops, len(queue)))]
        add(
            queue,
            f"t{number}",
            now=now,
            duration=arrival.duration,
            caller=arrival.caller,
            playout_deadline=deadlines[number],
        )
    assert sorted(left + emptied(queue, now)) == sorted(f"t{number}" for number in range(len(arrivals)))
    assert (len(queue), queue.seconds, list(queue)) == (0, 0, [])


@given(ARRIVALS, st.sampled_from([0.0, 1.0, 4.0]))
def test_siblings_are_overtaken_only_within_the_window(arrivals: list[Arrival], sjf_window: float) -> None:
    """An utterance that overtakes a sibling arrived at most `sjf_window` times the sibling's duration after it."""
    queue = FairQueue(sjf_window)
    now = 0.0
    waiting: dict[str, tuple[Arrival, float]] = {}

    def pop() -> None:
        name = queue.pop(now).attempt_id.utterance
        popped, arrived = waiting.pop(name)
        for sibling, sibling_arrived in waiting.values():
            if sibling.caller == popped.caller and sibling_arrived < arrived:
                assert arrived - sibling_arrived <= sjf_window * sibling.duration

    for number, arrival in enumerate(arrivals):
        now += arrival.after
        for _ in range(min(arrival.pops, len(queue))):
            pop()
        add(queue, f"t{number}", now=now, duration=arrival.duration, caller=arrival.caller)
        waiting[f"t{number}"] = (arrival, now)
    while waiting:
        pop()


@given(ARRIVALS, PLAYOUT_DEADLINES, st.sampled_from([0.0, 4.0]))
def test_a_waiting_caller_is_overtaken_at_most_twice_by_each_other_caller(
    arrivals: list[Arrival], deadlines: list[float | None], sjf_window: float
) -> None:
    """Between two turns of a caller that always waits, every other caller has at most two: one in each round."""
    queue = FairQueue(sjf_window)
    now = 0.0
    turns: Counter[str] = Counter()
    for number in range(len(arrivals) + 1):
        add(queue, f"s{number}", now=0.0, duration=1.0, caller="steady")

    def pop() -> None:
        caller = queue.pop(now).terms.caller
        if caller == "steady":
            turns.clear()
        else:
            turns[caller] += 1
            assert turns[caller] <= 2

    for number, arrival in enumerate(arrivals):
        now += arrival.after
        for _ in range(arrival.pops):
            pop()
        add(
            queue,
            f"t{number}",
            now=now,
            duration=arrival.duration,
            caller=arrival.caller,
            playout_deadline=deadlines[number],
        )
        if len([attempt_id for attempt_id in queue if attempt_id.utterance.startswith("s")]) < 2:
            break


@given(ARRIVALS, PLAYOUT_DEADLINES)
def test_of_two_turns_of_a_caller_one_at_least_goes_by_rank(
    arrivals: list[Arrival], deadlines: list[float | None]
) -> None:
    queue = FairQueue(sjf_window=1.0)
    now, preempted = 0.0, False
    waiting: list[tuple[float, int]] = []
    for number, arrival in enumerate(arrivals):
        now += arrival.after
        add(queue, str(number), now=now, duration=arrival.duration, playout_deadline=deadlines[number])
        playout_deadline = deadlines[number]
        due = 0.0 if playout_deadline is None else playout_deadline - PLAYOUT_SLACK_DURATIONS * arrival.duration
        waiting.append((max(now + arrival.duration, due), number))
        if arrival.pops:
            first = min(waiting)
            popped = int(queue.pop(now).attempt_id.utterance)
            assert not preempted or popped == first[1]
            preempted = popped != first[1]
            waiting = [entry for entry in waiting if entry[1] != popped]


@given(ARRIVALS, st.sampled_from([0.0, 1.0, 4.0]), DURATIONS, st.sampled_from("abcd"))
def test_the_seconds_ahead_are_those_that_go_ahead(
    arrivals: list[Arrival], sjf_window: float, duration: float, caller: str
) -> None:
    """Without later arrivals and deadlines."""
    queue = FairQueue(sjf_window)
    now = 0.0
    for number, arrival in enumerate(arrivals):
        now += arrival.after
        for _ in range(min(arrival.pops, len(queue))):
            queue.pop(now)
        add(queue, f"t{number}", now=now, duration=arrival.duration, caller=arrival.caller)
    utterance = QueuedUtterance(AttemptId("last"), duration, Terms(caller))
    expected = queue.seconds_ahead_of(utterance, duration=duration, now=now)
    queue.add(utterance, duration=duration, now=now)
    ahead = 0.0
    while (popped := queue.pop(now)).attempt_id.utterance != "last":
        ahead += popped.audio_seconds
    assert ahead == expected
