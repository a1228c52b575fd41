"""The scheduler by example, and under whatever may happen in any order."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from balancer.errors import DeadlineTooShortError, DeadlineUnreachableError, QueueFullError
from balancer.scheduling.fair_queue import Order
from balancer.scheduling.priority import Priority
from balancer.scheduling.scheduler import BATCH_TURN, Assignment, Scheduler

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH
LIMIT = 4


def order(
    ticket: str,
    seconds: float = 1.0,
    *,
    caller: str = "",
    priority: Priority = INTERACTIVE,
    deadline: float | None = None,
) -> Order:
    return Order(ticket, seconds, caller, priority, deadline)


def scheduler(*speeds: float, slots: int = 1, limit: int = 100, **settings: float) -> Scheduler:
    """With a worker of each speed, named w0, w1, and so on."""
    made = Scheduler(limit, **settings)
    for number, speed in enumerate(speeds):
        made.join(f"w{number}", slots=slots, speed=speed)
    return made


def assigned(scheduler: Scheduler, now: float = 0.0) -> list[str]:
    return [assignment.ticket for assignment in scheduler.assign(now)]


def served(scheduler: Scheduler, now: float = 0.0) -> list[str]:
    """The order in which all that wait get the slots, each being released at once."""
    order = []
    while tickets := assigned(scheduler, now):
        order += tickets
        for ticket in tickets:
            scheduler.release(ticket)
    return order


# Which worker


def test_the_least_busy_worker_counted_in_seconds_of_work() -> None:
    line = scheduler(1.0, 1.0, slots=2)
    line.submit(order("long", 10.0), 0.0)
    line.submit(order("short", 1.0), 0.0)
    line.submit(order("next", 1.0), 0.0)
    assert line.assign(0.0) == [Assignment("long", "w0"), Assignment("short", "w1"), Assignment("next", "w1")]


def test_workers_of_several_slots_are_filled_side_by_side() -> None:
    line = scheduler(1.0, 1.0, slots=4)
    for number in range(10):
        line.submit(order(f"t{number}"), 0.0)
    filled = [assignment.worker for assignment in line.assign(0.0)]
    assert filled == ["w0", "w1"] * 4
    assert (line.running_on("w0"), line.running_on("w1"), line.free_slots, line.depth) == (4, 4, 0, 2)
    line.release("t3")
    line.release("t5")
    assert line.assign(0.0) == [Assignment("t8", "w1"), Assignment("t9", "w1")], "where slots have become free"


def test_with_slots_free_everywhere_work_counts_and_not_its_number() -> None:
    line = scheduler(1.0, 1.0, slots=4)
    line.submit(order("long", 10.0), 0.0)
    line.assign(0.0)
    for number in range(4):
        line.submit(order(f"short{number}", 2.0), 0.0)
    assert [assignment.worker for assignment in line.assign(0.0)] == ["w1"] * 4
    line.submit(order("last", 2.0), 0.0)
    assert line.assign(0.0) == [Assignment("last", "w0")], "the other worker is full"


def test_work_that_is_done_by_now_counts_no_more() -> None:
    line = scheduler(1.0, 1.0, slots=2)
    line.submit(order("long", 10.0), 0.0)
    line.assign(0.0)
    line.submit(order("late", 2.0), 9.0)
    line.assign(9.0)
    assert line.worker_of("late") == "w1"
    line.submit(order("later", 1.0), 9.5)  # 0.5 s are left of the long one, 1.5 s of the late one
    assert line.assign(9.5) == [Assignment("later", "w0")]


def test_a_fast_worker_has_less_work_of_the_same_audio() -> None:
    line = scheduler(1.0, 4.0, slots=2)
    for number in range(2):
        line.submit(order(f"t{number}", 8.0), 0.0)
    line.assign(0.0)
    line.submit(order("next"), 0.0)
    assert line.assign(0.0) == [Assignment("next", "w1")]
    line.update("w1", speed=0.5)
    line.submit(order("after"), 0.0)
    assert line.assign(0.0) == [Assignment("after", "w0")]


def test_ties_go_to_the_worker_used_least_lately() -> None:
    line = scheduler(1.0, 1.0, 1.0)
    used = []
    for number in range(6):
        line.submit(order(f"t{number}"), 0.0)
        used += [assignment.worker for assignment in line.assign(0.0)]
        line.release(f"t{number}")
    assert used == ["w0", "w1", "w2", "w0", "w1", "w2"]


def test_a_closed_worker_gets_nothing_until_it_is_opened() -> None:
    line = scheduler(1.0)
    line.close("w0")
    line.submit(order("t"), 0.0)
    assert (assigned(line), line.slots, line.free_slots) == ([], 0, 0)
    line.reopen("w0")
    assert assigned(line) == ["t"]


def test_what_runs_on_a_closed_worker_goes_on() -> None:
    line = scheduler(1.0)
    line.submit(order("t"), 0.0)
    line.assign(0.0)
    line.close("w0")
    assert (line.running, line.running_on("w0"), line.worker_of("t")) == (1, 1, "w0")
    line.release("t")
    assert line.running == 0


def test_a_worker_that_leaves_tells_what_ran_there() -> None:
    line = scheduler(1.0, slots=2)
    for ticket in ("a", "b", "c"):
        line.submit(order(ticket), 0.0)
    line.assign(0.0)
    assert sorted(line.leave("w0")) == ["a", "b"]
    assert line.leave("w0") == ()
    assert (line.depth, line.running, line.slots) == (1, 0, 0)


# Whose turn


def test_what_runs_again_goes_before_everything() -> None:
    line = scheduler(1.0)
    line.submit(order("waiting"), 0.0)
    line.resubmit(order("again", priority=BATCH))
    line.resubmit(order("again too"))
    assert line.depths == {INTERACTIVE: 2, BATCH: 1}
    assert served(line) == ["again", "again too", "waiting"]


def test_interactive_goes_before_batch() -> None:
    line = scheduler(1.0)
    line.submit(order("batch", priority=BATCH), 0.0)
    line.submit(order("interactive"), 5.0)
    assert served(line, 5.0) == ["interactive", "batch"]


def test_batch_that_waited_its_patience_out_gets_one_turn_in_four() -> None:
    line = scheduler(1.0, batch_ageing_seconds=60.0)
    for number in range(2):
        line.submit(order(f"b{number}", priority=BATCH), 0.0)
    for number in range(8):
        line.submit(order(f"i{number}"), 1.0)
    assert served(line, 60.0) == ["i0", "i1", "i2", "b0", "i3", "i4", "i5", "b1", "i6", "i7"]


def test_batch_that_has_not_waits_for_all_interactive_work() -> None:
    line = scheduler(1.0, batch_ageing_seconds=60.0)
    line.submit(order("batch", priority=BATCH), 0.0)
    for number in range(8):
        line.submit(order(f"i{number}"), 1.0)
    assert served(line, 59.9)[-1] == "batch"


def test_a_turn_that_batch_had_in_idle_time_counts() -> None:
    line = scheduler(1.0, batch_ageing_seconds=0.0)
    for number in range(3):
        line.submit(order(f"b{number}", priority=BATCH), 0.0)
    assert assigned(line) == ["b0"]
    line.release("b0")
    for number in range(4):
        line.submit(order(f"i{number}"), 0.0)
    assert served(line) == ["i0", "i1", "i2", "b1", "i3", "b2"]


# The limit, the wait and the deadline


def test_the_line_is_bounded_and_slots_come_on_top() -> None:
    line = scheduler(1.0, 1.0, limit=LIMIT)
    for number in range(LIMIT + 2):
        line.submit(order(f"t{number}"), 0.0)
    with pytest.raises(QueueFullError) as caught:
        line.submit(order("one too many"), 0.0)
    assert line.depth == LIMIT + 2
    line.assign(0.0)
    assert line.depth == LIMIT
    with pytest.raises(QueueFullError) as caught:
        line.submit(order("one too many"), 0.0)
    # One second is left in either slot, and four seconds of work wait.
    assert caught.value.retry_after == pytest.approx(3.0)


def test_a_line_full_of_batch_work_takes_interactive_work() -> None:
    line = scheduler(1.0, limit=1)
    line.submit(order("running"), 0.0)
    line.assign(0.0)
    line.submit(order("batch", priority=BATCH), 0.0)
    with pytest.raises(QueueFullError):
        line.submit(order("more batch", priority=BATCH), 0.0)
    line.submit(order("interactive"), 0.0)
    assert line.depths == {INTERACTIVE: 1, BATCH: 1}


def test_nobody_waits_where_a_slot_is_free() -> None:
    assert scheduler(1.0).expected_wait(order("t"), 0.0) == 0.0


def test_without_workers_the_wait_is_endless() -> None:
    assert scheduler().expected_wait(order("t"), 0.0) == inf


def test_the_wait_is_for_what_runs_and_what_goes_before() -> None:
    line = scheduler(1.0, 1.0)
    line.submit(order("a", 4.0), 0.0)
    line.submit(order("b", 6.0), 0.0)
    line.assign(0.0)
    assert line.expected_wait(order("next"), 0.0) == pytest.approx(4.0)
    assert line.expected_wait(order("next"), 3.0) == pytest.approx(1.0)
    line.submit(order("c", 4.0), 0.0)
    assert line.expected_wait(order("next"), 0.0) == pytest.approx(7.0)  # poured in: (4 + 6 + 4) / 2


def test_batch_work_waits_for_interactive_work_and_not_the_other_way_round() -> None:
    line = scheduler(1.0)
    line.submit(order("running", 1.0), 0.0)
    line.assign(0.0)
    line.submit(order("i", 2.0), 0.0)
    line.submit(order("b", 4.0, priority=BATCH), 0.0)
    assert line.expected_wait(order("next"), 0.0) == pytest.approx(3.0)
    assert line.expected_wait(order("next", priority=BATCH), 0.0) == pytest.approx(7.0)


def test_what_cannot_be_done_in_time_is_refused_at_once_with_when_it_could() -> None:
    line = scheduler(1.0)
    line.submit(order("running", 5.0), 0.0)
    line.assign(0.0)
    line.submit(order("just in time", 1.0, deadline=6.0), 0.0)
    with pytest.raises(DeadlineUnreachableError, match=r"6\.0 s of work wait") as caught:
        line.submit(order("too late", 1.0, deadline=6.5), 0.0)
    assert caught.value.retry_after == pytest.approx(0.5)
    assert line.depth == 1


def test_a_text_that_takes_longer_than_its_deadline_is_refused_for_good() -> None:
    with pytest.raises(DeadlineTooShortError, match="shorter text") as caught:
        scheduler(1.0).submit(order("t", 3.0, deadline=2.0), 0.0)
    assert caught.value.retry_after is None


def test_while_no_worker_is_there_a_deadline_is_no_reason_to_refuse() -> None:
    line = scheduler()
    line.submit(order("t", 1.0, deadline=5.0), 0.0)
    assert line.depth == 1


# A second attempt


def test_a_hedge_takes_an_idle_worker_and_not_its_own() -> None:
    line = scheduler(1.0, 1.0, slots=2)
    line.submit(order("t", 1.0), 0.0)
    line.assign(0.0)
    assert line.hedge(order("t+"), 0.0, beside="t") == Assignment("t+", "w1")
    assert (line.worker_of("t+"), line.running) == ("w1", 2)


def test_there_is_no_hedge_while_anybody_waits_or_nobody_idles() -> None:
    line = scheduler(1.0, 1.0)
    for ticket in ("a", "b", "c"):
        line.submit(order(ticket), 0.0)
    line.assign(0.0)
    assert line.hedge(order("a+"), 0.0, beside="a") is None
    line.release("c")
    assert line.hedge(order("a+"), 0.0, beside="a") is None
    line.release("b")
    assert line.hedge(order("a+"), 0.0, beside="a") == Assignment("a+", "w1")


# What comes about


@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([0.0, 4.0]),
)
def test_the_expected_wait_comes_about_within_the_longest_text(
    waiting: list[float], slots: int, mine: float, sjf_window: float
) -> None:
    """With one caller, nobody later, and durations as expected: off by less than one text, as work is poured evenly."""
    line = scheduler(*[1.0] * slots, sjf_window=sjf_window)
    for number, seconds in enumerate(waiting):
        line.submit(order(f"t{number}", seconds), 0.0)
    line.assign(0.0)
    expected = line.expected_wait(order("mine", mine), 0.0)
    line.submit(order("mine", mine), 0.0)
    seconds_of = {f"t{number}": seconds for number, seconds in enumerate(waiting)} | {"mine": mine}
    ends = {ticket: seconds for ticket, seconds in seconds_of.items() if line.worker_of(ticket)}
    now = 0.0
    while "mine" not in ends:
        for ticket in assigned(line, now):
            ends[ticket] = now + seconds_of[ticket]
        if "mine" not in ends:
            now, done = min((end, ticket) for ticket, end in ends.items() if line.worker_of(ticket))
            line.release(done)
    started = ends["mine"] - mine
    assert abs(started - expected) <= max([*waiting, 0.0])


class Events(RuleBasedStateMachine):
    """Whatever may happen, in any order, against a model that knows who must be where."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMIT, sjf_window=2.0, batch_ageing_seconds=5.0)
        self.now = 100.0
        self.orders: dict[str, Order] = {}
        self.line: set[str] = set()
        self.running: dict[str, str] = {}
        self.lost: set[str] = set()
        """Their worker has gone; nobody has put them back yet."""
        self.slots: dict[str, int] = {}
        self.open: set[str] = set()
        self.joined = 0
        self.since_batch = 0

    @property
    def free(self) -> int:
        return sum(max(0, self.slots[name] - self.held(name)) for name in self.open)

    def held(self, worker: str) -> int:
        return list(self.running.values()).count(worker)

    def waiting(self, priority: Priority) -> int:
        return sum(self.orders[ticket].priority is priority for ticket in self.line)

    @rule(seconds=st.sampled_from([0.0, 0.5, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        seconds=st.sampled_from([0.5, 1.0, 3.0]),
        caller=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        left=st.none() | st.sampled_from([0.1, 2.0, 50.0]),
    )
    def submit(self, seconds: float, caller: str, priority: Priority, left: float | None) -> None:
        ticket = f"t{len(self.orders)}"
        new = order(
            ticket,
            seconds,
            caller=caller,
            priority=priority,
            deadline=None if left is None else self.now + left,
        )
        wait = self.scheduler.expected_wait(new, self.now)
        try:
            self.scheduler.submit(new, self.now)
        except QueueFullError:
            assert self.waiting(priority) >= LIMIT
        except (DeadlineTooShortError, DeadlineUnreachableError):
            assert left is not None
            assert wait + seconds * 2 > left  # the slowest worker makes half an audio second a second
        else:
            # What waits to run again is not counted against the limit: it was in line before.
            assert self.waiting(priority) < LIMIT + self.free + len(self.line)
            self.orders[ticket] = new
            self.line.add(ticket)

    @rule(slots=st.integers(1, 3), speed=st.sampled_from([0.5, 1.0, 2.0]))
    def join(self, slots: int, speed: float) -> None:
        name = f"w{self.joined}"
        self.joined += 1
        self.scheduler.join(name, slots=slots, speed=speed)
        self.slots[name] = slots
        self.open.add(name)

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.slots)))
        gone = set(self.scheduler.leave(name))
        assert gone == {ticket for ticket, worker in self.running.items() if worker == name}
        self.running = {ticket: worker for ticket, worker in self.running.items() if worker != name}
        del self.slots[name]
        self.open.discard(name)
        self.lost |= gone

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), speed=st.sampled_from([0.5, 1.0, 2.0]))
    def update(self, data: st.DataObject, speed: float) -> None:
        self.scheduler.update(data.draw(st.sampled_from(sorted(self.slots))), speed=speed)

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), opened=st.booleans())
    def open_or_close(self, data: st.DataObject, opened: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.slots)))
        if opened:
            self.scheduler.reopen(name)
            self.open.add(name)
        else:
            self.scheduler.close(name)
            self.open.discard(name)

    @rule()
    def assign(self) -> None:
        for assignment in self.scheduler.assign(self.now):
            assert assignment.ticket in self.line, "it was not there to be given"
            assert assignment.worker in self.open
            assert self.held(assignment.worker) < self.slots[assignment.worker], "the slot was taken"
            assert self.free, "there was none"
            self.line.remove(assignment.ticket)
            self.running[assignment.ticket] = assignment.worker
        assert not (self.free and self.line), "a slot idles beside an utterance that could use it"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def hedge(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        second = f"{ticket}+{len(self.orders)}"
        made = self.scheduler.hedge(order(second), self.now, beside=ticket)
        elsewhere = any(self.held(name) < self.slots[name] for name in self.open - {self.running[ticket]})
        assert (made is not None) == (elsewhere and not self.line)
        if made is not None:
            assert made.worker != self.running[ticket]
            self.orders[second] = order(second)
            self.running[second] = made.worker

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """It is over, was cancelled in line, or is released twice."""
        ticket = data.draw(st.sampled_from(sorted(self.orders)))
        self.scheduler.release(ticket)
        self.line.discard(ticket)
        self.running.pop(ticket, None)
        self.lost.discard(ticket)

    @precondition(lambda self: self.lost)
    @rule()
    def run_again(self) -> None:
        ticket = min(self.lost)
        self.lost.remove(ticket)
        self.scheduler.resubmit(self.orders[ticket])
        self.line.add(ticket)

    @invariant()
    def everyone_is_where_the_model_says(self) -> None:
        assert self.scheduler.depth == len(self.line)
        assert self.scheduler.depths == {priority: self.waiting(priority) for priority in Priority}
        assert self.scheduler.running == len(self.running)
        assert self.scheduler.free_slots == self.free
        assert self.scheduler.slots == sum(self.slots[name] for name in self.open)
        for ticket in self.orders:
            assert self.scheduler.worker_of(ticket) == self.running.get(ticket)


Events.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestEvents = Events.TestCase


@given(st.lists(st.sampled_from(["interactive", "batch", "serve"]), max_size=60))
def test_neither_priority_starves(events: list[str]) -> None:
    """Batch that has waited its patience out is assigned at least once in four turns, interactive in three of four."""
    line = scheduler(1.0, limit=1000, batch_ageing_seconds=0.0)
    since = dict.fromkeys(Priority, 0)
    for number, event in enumerate(events):
        if event != "serve":
            line.submit(order(f"{event} {number}", priority=Priority(event)), 0.0)
            continue
        waiting = {priority: depth > 0 for priority, depth in line.depths.items()}
        for ticket in assigned(line):  # there is one slot
            line.release(ticket)
            for priority in Priority:
                passed_over = waiting[priority] and not ticket.startswith(priority)
                since[priority] = since[priority] + 1 if passed_over else 0
        assert since[BATCH] < BATCH_TURN
        assert since[INTERACTIVE] <= 1
