"""The order of one line: rounds of callers, ranks within them, and the bounds on how far anyone is passed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.scheduling.fair_queue import Line, Order

DURATIONS = st.sampled_from([0.25, 0.5, 1.0, 4.0, 16.0])


def add(
    line: Line, ticket: str, *, now: float, duration: float = 1.0, caller: str = "", by: float | None = None
) -> None:
    line.add(Order(ticket, duration, caller, deadline=by), duration=duration, now=now)


def emptied(line: Line, now: float = 0.0) -> list[str]:
    return [line.pop(now).ticket for _ in range(len(line))]


def test_arrivals_decide_where_nobody_may_overtake() -> None:
    line = Line(sjf_window=0)
    for number, duration in enumerate((16.0, 1.0, 4.0)):
        add(line, f"t{number}", now=number, duration=duration)
    assert emptied(line) == ["t0", "t1", "t2"]


def test_equal_ranks_keep_the_order_of_arrival() -> None:
    line = Line(sjf_window=4)
    for number in range(5):
        add(line, f"t{number}", now=0.0)
    assert emptied(line) == ["t0", "t1", "t2", "t3", "t4"]


def test_a_short_one_passes_long_ones_that_came_a_little_earlier() -> None:
    line = Line(sjf_window=4)
    add(line, "long", now=0.0, duration=10.0)  # rank 40
    add(line, "short", now=35.0, duration=1.0)  # rank 39
    add(line, "late", now=37.0, duration=1.0)  # rank 41
    assert emptied(line) == ["short", "long", "late"]


def test_callers_take_turns_whoever_has_more() -> None:
    line = Line(sjf_window=0)
    for number in range(4):
        add(line, f"a{number}", now=number, caller="a")
    add(line, "b0", now=4.0, caller="b")
    add(line, "c0", now=5.0, caller="c")
    assert emptied(line) == ["a0", "b0", "c0", "a1", "a2", "a3"]


def test_who_comes_during_a_round_waits_for_the_next() -> None:
    line = Line(sjf_window=0)
    for caller in "abc":
        add(line, f"{caller}0", now=0.0, caller=caller)
        add(line, f"{caller}1", now=0.0, caller=caller)
    assert line.pop(0.0).ticket == "a0"
    add(line, "d0", now=1.0, caller="d")
    assert emptied(line) == ["b0", "c0", "a1", "b1", "c1", "d0"]


def test_leaving_the_line_gives_no_second_turn() -> None:
    line = Line(sjf_window=0)
    add(line, "a0", now=0.0, caller="a")
    add(line, "b0", now=0.0, caller="b")
    line.remove("a0")
    line.remove("not there")
    add(line, "a1", now=1.0, caller="a")
    assert "a0" not in line
    assert emptied(line) == ["b0", "a1"]


def test_a_deadline_goes_before_a_mate_that_can_wait() -> None:
    line = Line(sjf_window=0)
    add(line, "patient", now=0.0, duration=2.0)
    add(line, "pressed", now=0.0, duration=1.0, by=2.5)  # behind the patient one it would be done at 3
    assert emptied(line) == ["pressed", "patient"]


def test_a_deadline_that_can_be_met_behind_the_mate_changes_nothing() -> None:
    line = Line(sjf_window=0)
    add(line, "first", now=0.0, duration=2.0)
    add(line, "second", now=0.0, duration=1.0, by=3.0)
    assert emptied(line) == ["first", "second"]


def test_a_deadline_that_is_lost_already_changes_nothing() -> None:
    line = Line(sjf_window=0)
    add(line, "first", now=0.0)
    add(line, "lost", now=0.0, by=0.5)
    assert emptied(line) == ["first", "lost"]


def test_the_more_pressed_one_goes_first() -> None:
    line = Line(sjf_window=0)
    add(line, "first", now=0.0, duration=2.0, by=2.5)
    add(line, "second", now=0.0, duration=1.0, by=1.2)
    assert line.pop(0.0).ticket == "second"


def test_deadlines_never_jump_twice_in_a_row() -> None:
    line = Line(sjf_window=0)
    add(line, "patient", now=0.0, duration=10.0)
    for number in range(3):
        add(line, f"pressed{number}", now=0.0, duration=1.0, by=5.0)
    assert emptied(line) == ["pressed0", "patient", "pressed1", "pressed2"]


def test_the_oldest_is_told_by_arrival_not_by_rank() -> None:
    line = Line(sjf_window=4)
    assert line.oldest() is None
    add(line, "long", now=1.0, duration=100.0)
    add(line, "short", now=2.0)
    assert line.oldest() == 1.0
    line.remove("long")
    assert line.oldest() == 2.0


def test_an_empty_line_has_nobody_to_give() -> None:
    with pytest.raises(ValueError, match="empty"):
        Line(sjf_window=0).pop(0.0)


@dataclass(frozen=True)
class Arrival:
    after: float
    duration: float
    caller: str
    pops: int
    """How many leave the line before it comes."""


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


@given(ARRIVALS, st.sampled_from([0.0, 1.0, 4.0]))
def test_nobody_is_lost_and_nobody_leaves_twice(arrivals: list[Arrival], sjf_window: float) -> None:
    line = Line(sjf_window)
    now, left = 0.0, []
    for number, arrival in enumerate(arrivals):
        now += arrival.after
        left += [line.pop(now).ticket for _ in range(min(arrival.pops, len(line)))]
        add(line, f"t{number}", now=now, duration=arrival.duration, caller=arrival.caller)
    assert sorted(left + emptied(line, now)) == sorted(f"t{number}" for number in range(len(arrivals)))
    assert (len(line), line.work, list(line)) == (0, 0, [])


@given(ARRIVALS, st.sampled_from([0.0, 1.0, 4.0]))
def test_a_callers_own_are_passed_only_by_what_came_little_later(arrivals: list[Arrival], sjf_window: float) -> None:
    """Whoever passes a mate came at most `sjf_window` times the mate's expected duration after it."""
    line = Line(sjf_window)
    now = 0.0
    waiting: dict[str, tuple[Arrival, float]] = {}

    def pop() -> None:
        ticket = line.pop(now).ticket
        gone, came = waiting.pop(ticket)
        for mate, mate_came in waiting.values():
            if mate.caller == gone.caller and mate_came < came:
                assert came - mate_came <= sjf_window * mate.duration

    for number, arrival in enumerate(arrivals):
        now += arrival.after
        for _ in range(min(arrival.pops, len(line))):
            pop()
        add(line, f"t{number}", now=now, duration=arrival.duration, caller=arrival.caller)
        waiting[f"t{number}"] = (arrival, now)
    while waiting:
        pop()


@given(ARRIVALS, st.sampled_from([0.0, 4.0]))
def test_a_caller_that_waits_is_passed_at_most_twice_by_each_other(arrivals: list[Arrival], sjf_window: float) -> None:
    """Between two turns of a caller that always waits, each other caller has two at most: one in either round."""
    line = Line(sjf_window)
    now = 0.0
    turns: Counter[str] = Counter()
    for number in range(len(arrivals) + 1):
        add(line, f"s{number}", now=0.0, duration=1.0, caller="steady")

    def pop() -> None:
        caller = line.pop(now).caller
        if caller == "steady":
            turns.clear()
        else:
            turns[caller] += 1
            assert turns[caller] <= 2

    for number, arrival in enumerate(arrivals):
        now += arrival.after
        for _ in range(arrival.pops):
            pop()
        add(line, f"t{number}", now=now, duration=arrival.duration, caller=arrival.caller)
        if len([ticket for ticket in line if ticket.startswith("s")]) < 2:
            break


@given(ARRIVALS, st.sampled_from([0.0, 1.0, 4.0]), DURATIONS, st.sampled_from("abcd"))
def test_the_work_ahead_is_what_then_goes_ahead(
    arrivals: list[Arrival], sjf_window: float, duration: float, caller: str
) -> None:
    """Where nobody comes later, and there are no deadlines."""
    line = Line(sjf_window)
    now = 0.0
    for number, arrival in enumerate(arrivals):
        now += arrival.after
        for _ in range(min(arrival.pops, len(line))):
            line.pop(now)
        add(line, f"t{number}", now=now, duration=arrival.duration, caller=arrival.caller)
    order = Order("mine", duration, caller)
    expected = line.ahead_of(order, duration=duration, now=now)
    line.add(order, duration=duration, now=now)
    ahead = 0.0
    while (gone := line.pop(now)).ticket != "mine":
        ahead += gone.audio_seconds
    assert ahead == expected
