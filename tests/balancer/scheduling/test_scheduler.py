"""The scheduler by example, and under events in any order."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from balancer.errors import DeadlineTooShortError, DeadlineUnreachableError, QueueFullError
from balancer.scheduling.priority import Priority
from balancer.scheduling.queued_utterance import NOTHING_HEARD, AttemptId, QueuedUtterance, Terms
from balancer.scheduling.scheduler import BATCH_TURN, Assignment, Scheduler
from balancer.settings.scheduling import SchedulingSettings

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH
LIMIT = 4


def queued(
    name: str,
    seconds: float = 1.0,
    *,
    caller: str = "",
    priority: Priority = INTERACTIVE,
    deadline: float | None = None,
) -> QueuedUtterance:
    return QueuedUtterance(AttemptId(name), seconds, Terms(caller, priority, deadline))


def retry_avoiding(name: str, *workers: str) -> QueuedUtterance:
    return QueuedUtterance(AttemptId(name), 1.0, avoided=frozenset(workers))


def hedge_of(name: str) -> QueuedUtterance:
    return QueuedUtterance(AttemptId(name).hedged(), 1.0)


def make_scheduler(*speeds: float, slots: int = 1, limit: int = 100, **settings: float) -> Scheduler:
    """A scheduler with one worker of each speed, named w0, w1, and so on."""
    scheduler = Scheduler(SchedulingSettings(queue_limit=limit, **({"sjf_window": 0.0} | settings)))
    for number, speed in enumerate(speeds):
        scheduler.join(f"w{number}", slots=slots, speed=speed)
    return scheduler


def assignments(scheduler: Scheduler, now: float = 0.0) -> list[tuple[str, str]]:
    """The utterances that get slots now, each with its worker."""
    return [(assignment.attempt_id.utterance, assignment.worker) for assignment in scheduler.assign(now)]


def assigned(scheduler: Scheduler, now: float = 0.0) -> list[str]:
    return [name for name, _ in assignments(scheduler, now)]


def served(scheduler: Scheduler, now: float = 0.0) -> list[str]:
    """The order in which all queued utterances get slots, when each is released at once."""
    order = []
    while names := assigned(scheduler, now):
        order += names
        for name in names:
            scheduler.release(AttemptId(name))
    return order


# Which worker


def test_the_least_busy_worker_counted_in_seconds_of_work() -> None:
    scheduler = make_scheduler(1.0, 1.0, slots=2)
    scheduler.submit(queued("long", 10.0), 0.0)
    scheduler.submit(queued("short", 1.0), 0.0)
    scheduler.submit(queued("next", 1.0), 0.0)
    assert assignments(scheduler) == [("long", "w0"), ("short", "w1"), ("next", "w1")]


def test_workers_of_several_slots_are_filled_side_by_side() -> None:
    scheduler = make_scheduler(1.0, 1.0, slots=4)
    for number in range(10):
        scheduler.submit(queued(f"t{number}"), 0.0)
    filled = [assignment.worker for assignment in scheduler.assign(0.0)]
    assert filled == ["w0", "w1"] * 4
    assert (scheduler.running_on("w0"), scheduler.running_on("w1")) == (4, 4)
    assert (scheduler.free_slots, scheduler.depth) == (0, 2)
    scheduler.release(AttemptId("t3"))
    scheduler.release(AttemptId("t5"))
    assert assignments(scheduler) == [("t8", "w1"), ("t9", "w1")], "where slots have become free"


def test_the_work_in_flight_counts_and_not_the_number_of_utterances() -> None:
    scheduler = make_scheduler(1.0, 1.0, slots=4)
    scheduler.submit(queued("long", 10.0), 0.0)
    scheduler.assign(0.0)
    for number in range(4):
        scheduler.submit(queued(f"short{number}", 2.0), 0.0)
    assert [assignment.worker for assignment in scheduler.assign(0.0)] == ["w1"] * 4
    scheduler.submit(queued("last", 2.0), 0.0)
    assert assignments(scheduler) == [("last", "w0")], "the other worker is full"


def test_work_that_is_done_does_not_count() -> None:
    scheduler = make_scheduler(1.0, 1.0, slots=2)
    scheduler.submit(queued("long", 10.0), 0.0)
    scheduler.assign(0.0)
    scheduler.submit(queued("late", 2.0), 9.0)
    scheduler.assign(9.0)
    assert scheduler.worker_of(AttemptId("late")) == "w1"
    scheduler.submit(queued("later", 1.0), 9.5)  # 0.5 s are left of the long one, 1.5 s of the late one
    assert assignments(scheduler, 9.5) == [("later", "w0")]


def test_a_fast_worker_has_less_work_of_the_same_audio() -> None:
    scheduler = make_scheduler(1.0, 4.0, slots=2)
    for number in range(2):
        scheduler.submit(queued(f"t{number}", 8.0), 0.0)
    scheduler.assign(0.0)
    scheduler.submit(queued("next"), 0.0)
    assert assignments(scheduler) == [("next", "w1")]
    scheduler.update("w1", speed=0.5)
    scheduler.submit(queued("after"), 0.0)
    assert assignments(scheduler) == [("after", "w0")]


def test_ties_go_to_the_worker_used_least_recently() -> None:
    scheduler = make_scheduler(1.0, 1.0, 1.0)
    used = []
    for number in range(6):
        scheduler.submit(queued(f"t{number}"), 0.0)
        used += [assignment.worker for assignment in scheduler.assign(0.0)]
        scheduler.release(AttemptId(f"t{number}"))
    assert used == ["w0", "w1", "w2", "w0", "w1", "w2"]


def test_a_closed_worker_gets_nothing_until_it_is_opened() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.close("w0")
    scheduler.submit(queued("t"), 0.0)
    assert (assigned(scheduler), scheduler.slots, scheduler.free_slots) == ([], 0, 0)
    scheduler.reopen("w0")
    assert assigned(scheduler) == ["t"]


def test_what_runs_on_a_closed_worker_goes_on() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.submit(queued("t"), 0.0)
    scheduler.assign(0.0)
    scheduler.close("w0")
    assert (scheduler.running, scheduler.running_on("w0"), scheduler.worker_of(AttemptId("t"))) == (1, 1, "w0")
    scheduler.release(AttemptId("t"))
    assert scheduler.running == 0


def test_a_worker_that_leaves_takes_its_slots_along() -> None:
    scheduler = make_scheduler(1.0, slots=2)
    for name in ("a", "b", "c"):
        scheduler.submit(queued(name), 0.0)
    scheduler.assign(0.0)
    assert [scheduler.worker_of(AttemptId(name)) for name in ("a", "b", "c")] == ["w0", "w0", None]
    for _ in range(2):  # the second time, nothing is left of it
        scheduler.leave("w0")
    assert [scheduler.worker_of(AttemptId(name)) for name in ("a", "b", "c")] == [None, None, None]
    assert (scheduler.depth, scheduler.running, scheduler.slots) == (1, 0, 0)


# Which utterance


def test_a_retry_goes_to_another_worker_than_those_it_avoids() -> None:
    scheduler = make_scheduler(1.0, 1.0)
    scheduler.resubmit(retry_avoiding("again", "w0"))
    assert assignments(scheduler) == [("again", "w1")]


def test_a_retry_waits_for_another_worker_while_others_go_first() -> None:
    scheduler = make_scheduler(1.0, 1.0)
    scheduler.submit(queued("busy"), 0.0)
    scheduler.submit(queued("next"), 0.0)
    assert dict(assignments(scheduler)) == {"busy": "w0", "next": "w1"}
    scheduler.resubmit(retry_avoiding("again", "w0"))
    scheduler.submit(queued("other"), 0.0)
    scheduler.release(AttemptId("busy"))
    assert assignments(scheduler) == [("other", "w0")]
    scheduler.release(AttemptId("next"))
    assert assignments(scheduler) == [("again", "w1")]


def test_a_retry_goes_to_a_worker_it_avoids_if_there_is_no_other() -> None:
    scheduler = make_scheduler(1.0, 1.0)
    scheduler.close("w1")
    scheduler.resubmit(retry_avoiding("again", "w0"))
    assert assignments(scheduler) == [("again", "w0")]


def test_retries_go_first() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.submit(queued("waiting"), 0.0)
    scheduler.resubmit(queued("again", priority=BATCH))
    scheduler.resubmit(queued("again too"))
    assert scheduler.depths == {INTERACTIVE: 2, BATCH: 1}
    assert served(scheduler) == ["again", "again too", "waiting"]


def test_interactive_goes_before_batch() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.submit(queued("batch", priority=BATCH), 0.0)
    scheduler.submit(queued("interactive"), 5.0)
    assert served(scheduler, 5.0) == ["interactive", "batch"]


def test_batch_that_has_aged_gets_one_turn_in_four() -> None:
    scheduler = make_scheduler(1.0, batch_ageing_seconds=60.0)
    for number in range(2):
        scheduler.submit(queued(f"b{number}", priority=BATCH), 0.0)
    for number in range(8):
        scheduler.submit(queued(f"i{number}"), 1.0)
    assert served(scheduler, 60.0) == ["i0", "i1", "i2", "b0", "i3", "i4", "i5", "b1", "i6", "i7"]


def test_batch_that_has_not_aged_waits_for_all_interactive_work() -> None:
    scheduler = make_scheduler(1.0, batch_ageing_seconds=60.0)
    scheduler.submit(queued("batch", priority=BATCH), 0.0)
    for number in range(8):
        scheduler.submit(queued(f"i{number}"), 1.0)
    assert served(scheduler, 59.9)[-1] == "batch"


def test_a_batch_turn_in_idle_time_counts() -> None:
    scheduler = make_scheduler(1.0, batch_ageing_seconds=0.0)
    for number in range(3):
        scheduler.submit(queued(f"b{number}", priority=BATCH), 0.0)
    assert assigned(scheduler) == ["b0"]
    scheduler.release(AttemptId("b0"))
    for number in range(4):
        scheduler.submit(queued(f"i{number}"), 0.0)
    assert served(scheduler) == ["i0", "i1", "i2", "b1", "i3", "b2"]


# The limit, the wait and the deadline


def test_the_queue_is_bounded_and_free_slots_come_on_top() -> None:
    scheduler = make_scheduler(1.0, 1.0, limit=LIMIT)
    for number in range(LIMIT + 2):
        scheduler.submit(queued(f"t{number}"), 0.0)
    with pytest.raises(QueueFullError) as caught:
        scheduler.submit(queued("one too many"), 0.0)
    assert scheduler.depth == LIMIT + 2
    scheduler.assign(0.0)
    assert scheduler.depth == LIMIT
    with pytest.raises(QueueFullError) as caught:
        scheduler.submit(queued("one too many"), 0.0)
    # One second is left in either slot, and four seconds of work wait.
    assert caught.value.retry_after == pytest.approx(3.0)


def test_a_queue_full_of_batch_work_takes_interactive_work() -> None:
    scheduler = make_scheduler(1.0, limit=1)
    scheduler.submit(queued("running"), 0.0)
    scheduler.assign(0.0)
    scheduler.submit(queued("batch", priority=BATCH), 0.0)
    with pytest.raises(QueueFullError):
        scheduler.submit(queued("more batch", priority=BATCH), 0.0)
    scheduler.submit(queued("interactive"), 0.0)
    assert scheduler.depths == {INTERACTIVE: 1, BATCH: 1}


def test_the_wait_is_zero_while_a_slot_is_free() -> None:
    assert make_scheduler(1.0).expected_wait(queued("t"), 0.0) == 0.0


def test_the_wait_is_infinite_without_workers() -> None:
    assert make_scheduler().expected_wait(queued("t"), 0.0) == inf


def test_the_wait_counts_running_and_queued_work() -> None:
    scheduler = make_scheduler(1.0, 1.0)
    scheduler.submit(queued("a", 4.0), 0.0)
    scheduler.submit(queued("b", 6.0), 0.0)
    scheduler.assign(0.0)
    assert scheduler.expected_wait(queued("next"), 0.0) == pytest.approx(4.0)
    assert scheduler.expected_wait(queued("next"), 3.0) == pytest.approx(1.0)
    scheduler.submit(queued("c", 4.0), 0.0)
    assert scheduler.expected_wait(queued("next"), 0.0) == pytest.approx(7.0)  # (4 + 6 + 4) / 2


def test_batch_work_waits_for_interactive_work_and_not_the_other_way_round() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.submit(queued("running", 1.0), 0.0)
    scheduler.assign(0.0)
    scheduler.submit(queued("i", 2.0), 0.0)
    scheduler.submit(queued("b", 4.0, priority=BATCH), 0.0)
    assert scheduler.expected_wait(queued("next"), 0.0) == pytest.approx(3.0)
    assert scheduler.expected_wait(queued("next", priority=BATCH), 0.0) == pytest.approx(7.0)


def test_an_unreachable_deadline_is_refused_at_once_with_the_missing_time() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.submit(queued("running", 5.0), 0.0)
    scheduler.assign(0.0)
    scheduler.submit(queued("just in time", 1.0, deadline=6.0), 0.0)
    with pytest.raises(DeadlineUnreachableError, match=r"6\.0 s of work are queued") as caught:
        scheduler.submit(queued("too late", 1.0, deadline=6.5), 0.0)
    assert caught.value.retry_after == pytest.approx(0.5)
    assert scheduler.depth == 1


def test_a_text_that_takes_longer_than_its_deadline_is_refused_for_good() -> None:
    with pytest.raises(DeadlineTooShortError, match="shorter text") as caught:
        make_scheduler(1.0).submit(queued("t", 3.0, deadline=2.0), 0.0)
    assert caught.value.retry_after is None


def test_without_workers_a_deadline_is_no_reason_to_refuse() -> None:
    scheduler = make_scheduler()
    scheduler.submit(queued("t", 1.0, deadline=5.0), 0.0)
    assert scheduler.depth == 1


# Hedges


def test_a_hedge_takes_an_idle_worker_and_not_its_own() -> None:
    scheduler = make_scheduler(1.0, 1.0, slots=2)
    scheduler.submit(queued("t", 1.0), 0.0)
    scheduler.assign(0.0)
    assert scheduler.hedge(hedge_of("t"), 0.0, beside=AttemptId("t")) == Assignment(AttemptId("t").hedged(), "w1")
    assert (scheduler.worker_of(AttemptId("t").hedged()), scheduler.running) == ("w1", 2)


def test_there_is_no_hedge_while_utterances_are_queued_or_no_worker_is_idle() -> None:
    scheduler = make_scheduler(1.0, 1.0)
    for name in ("a", "b", "c"):
        scheduler.submit(queued(name), 0.0)
    scheduler.assign(0.0)
    assert scheduler.hedge(hedge_of("a"), 0.0, beside=AttemptId("a")) is None
    scheduler.release(AttemptId("c"))
    assert scheduler.hedge(hedge_of("a"), 0.0, beside=AttemptId("a")) is None
    scheduler.release(AttemptId("b"))
    assert scheduler.hedge(hedge_of("a"), 0.0, beside=AttemptId("a")) == Assignment(AttemptId("a").hedged(), "w1")


# Properties


@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([0.0, 4.0]),
)
def test_the_expected_wait_is_right_within_the_longest_text(
    waiting: list[float], slots: int, last: float, sjf_window: float
) -> None:
    """With one caller, no later arrivals and exact durations, the error is less than one text: the estimate spreads
    work evenly over the slots."""
    scheduler = make_scheduler(*[1.0] * slots, sjf_window=sjf_window)
    for number, seconds in enumerate(waiting):
        scheduler.submit(queued(f"t{number}", seconds), 0.0)
    scheduler.assign(0.0)
    expected = scheduler.expected_wait(queued("last", last), 0.0)
    scheduler.submit(queued("last", last), 0.0)
    seconds_of = {f"t{number}": seconds for number, seconds in enumerate(waiting)} | {"last": last}
    ends = {name: seconds for name, seconds in seconds_of.items() if scheduler.worker_of(AttemptId(name))}
    now = 0.0
    while "last" not in ends:
        for name in assigned(scheduler, now):
            ends[name] = now + seconds_of[name]
        if "last" not in ends:
            now, done = min((end, name) for name, end in ends.items() if scheduler.worker_of(AttemptId(name)))
            scheduler.release(AttemptId(done))
    started = ends["last"] - last
    assert abs(started - expected) <= max([*waiting, 0.0])


def improve(scheduler: Scheduler, name: str, caller: str, priority: Priority) -> None:
    scheduler.improve(AttemptId(name), Terms(caller, priority), 0.0)


def test_a_batch_utterance_goes_with_the_interactive_ones_once_an_interactive_request_waits_for_it() -> None:
    scheduler = make_scheduler(1.0)
    for name in ("running", "i1", "i2"):
        scheduler.submit(queued(name, caller=name), 0.0)
    assert assigned(scheduler) == ["running"]
    for name in ("b1", "b2"):
        scheduler.submit(queued(name, caller="jobs", priority=BATCH), 0.0)
    improve(scheduler, "b2", "person", INTERACTIVE)
    improve(scheduler, "b2", "jobs", BATCH)  # never back
    improve(scheduler, "running", "person", INTERACTIVE)
    improve(scheduler, "unknown", "person", INTERACTIVE)
    assert scheduler.depths == {INTERACTIVE: 3, BATCH: 1}
    scheduler.release(AttemptId("running"))
    assert served(scheduler) == ["i1", "i2", "b2", "b1"]


def test_a_shared_utterance_goes_in_the_earlier_of_its_callers_turns() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.submit(queued("running"), 0.0)
    assert assigned(scheduler) == ["running"]
    for number in range(5):
        scheduler.submit(queued(f"a{number}", caller="a"), 0.0)
    scheduler.submit(queued("b0", caller="b"), 0.0)
    improve(scheduler, "a4", "c", INTERACTIVE)
    improve(scheduler, "b0", "a", INTERACTIVE)  # it would come later
    scheduler.release(AttemptId("running"))
    assert served(scheduler) == ["a0", "b0", "a4", "a1", "a2", "a3"]


def test_a_listener_of_a_shared_utterance_is_waited_for_in_whatever_place_it_has() -> None:
    scheduler = make_scheduler(1.0)
    scheduler.submit(queued("running"), 0.0)
    assert assigned(scheduler) == ["running"]
    for name in ("i1", "i2"):
        scheduler.submit(queued(name), 0.0)
    scheduler.submit(queued("b1", priority=BATCH), 0.0)
    scheduler.improve(AttemptId("i2"), Terms(playout_deadline=NOTHING_HEARD), 0.0)
    scheduler.improve(AttemptId("b1"), Terms(priority=BATCH, playout_deadline=NOTHING_HEARD), 0.0)
    improve(scheduler, "b1", "person", INTERACTIVE)
    scheduler.release(AttemptId("running"))
    assert served(scheduler) == ["i2", "b1", "i1"], "the callers with listeners go first in a round"


def test_a_full_queue_takes_no_improved_utterance_in() -> None:
    scheduler = make_scheduler(1.0, limit=1)
    scheduler.submit(queued("running"), 0.0)
    assert assigned(scheduler) == ["running"]
    scheduler.submit(queued("i1"), 0.0)
    scheduler.submit(queued("b1", priority=BATCH), 0.0)
    improve(scheduler, "b1", "person", INTERACTIVE)
    assert scheduler.depths == {INTERACTIVE: 1, BATCH: 1}


class Events(RuleBasedStateMachine):
    """Events in any order, against a model that tracks where each attempt must be."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(SchedulingSettings(queue_limit=LIMIT, sjf_window=2.0, batch_ageing_seconds=5.0))
        self.now = 100.0
        self.utterances: dict[AttemptId, QueuedUtterance] = {}
        self.queue: set[AttemptId] = set()
        self.running: dict[AttemptId, str] = {}
        self.lost: set[AttemptId] = set()
        """Attempts whose worker has left and that have not been resubmitted."""
        self.slots: dict[str, int] = {}
        self.open: set[str] = set()
        self.joined = 0
        self.since_batch = 0

    @property
    def free(self) -> int:
        return sum(max(0, self.slots[name] - self.taken(name)) for name in self.open)

    def taken(self, worker: str) -> int:
        return list(self.running.values()).count(worker)

    def waiting(self, priority: Priority) -> int:
        return sum(self.utterances[attempt_id].terms.priority is priority for attempt_id in self.queue)

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
        new = queued(
            f"t{len(self.utterances)}",
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
            assert wait + seconds * 2 > left  # the slowest worker makes half an audio second per second
        else:
            # Retries do not count against the limit: they have been queued before.
            assert self.waiting(priority) < LIMIT + self.free + len(self.queue)
            self.utterances[new.attempt_id] = new
            self.queue.add(new.attempt_id)

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
        gone = {attempt_id for attempt_id in self.utterances if self.scheduler.worker_of(attempt_id) == name}
        assert gone == {attempt_id for attempt_id, worker in self.running.items() if worker == name}
        self.scheduler.leave(name)
        self.running = {attempt_id: worker for attempt_id, worker in self.running.items() if worker != name}
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
            assert assignment.attempt_id in self.queue, "the attempt was not queued"
            assert assignment.worker in self.open
            assert self.taken(assignment.worker) < self.slots[assignment.worker], "the slot was taken"
            assert self.free, "there was no free slot"
            self.queue.remove(assignment.attempt_id)
            self.running[assignment.attempt_id] = assignment.worker
        assert not (self.free and self.queue), "a slot idles while an utterance waits that could use it"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def hedge(self, data: st.DataObject) -> None:
        first = data.draw(st.sampled_from(sorted(self.running)))
        hedge = queued(f"{first}+{len(self.utterances)}")
        made = self.scheduler.hedge(hedge, self.now, beside=first)
        elsewhere = any(self.taken(name) < self.slots[name] for name in self.open - {self.running[first]})
        assert (made is not None) == (elsewhere and not self.queue)
        if made is not None:
            assert made.worker != self.running[first]
            self.utterances[hedge.attempt_id] = hedge
            self.running[hedge.attempt_id] = made.worker

    @precondition(lambda self: self.utterances)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """The attempt has ended, was cancelled in the queue, or is released twice."""
        attempt_id = data.draw(st.sampled_from(sorted(self.utterances)))
        self.scheduler.release(attempt_id)
        self.queue.discard(attempt_id)
        self.running.pop(attempt_id, None)
        self.lost.discard(attempt_id)

    @precondition(lambda self: self.lost)
    @rule()
    def resubmit(self) -> None:
        attempt_id = min(self.lost)
        self.lost.remove(attempt_id)
        self.scheduler.resubmit(self.utterances[attempt_id])
        self.queue.add(attempt_id)

    @invariant()
    def every_attempt_is_where_the_model_says(self) -> None:
        assert self.scheduler.depth == len(self.queue)
        assert self.scheduler.depths == {priority: self.waiting(priority) for priority in Priority}
        assert self.scheduler.running == len(self.running)
        assert self.scheduler.free_slots == self.free
        assert self.scheduler.slots == sum(self.slots[name] for name in self.open)
        for attempt_id in self.utterances:
            assert self.scheduler.worker_of(attempt_id) == self.running.get(attempt_id)


Events.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestEvents = Events.TestCase


@given(st.lists(st.sampled_from(["interactive", "batch", "serve"]), max_size=60))
def test_neither_priority_starves(events: list[str]) -> None:
    """Batch work that has aged gets at least one turn in four, interactive work three in four."""
    scheduler = make_scheduler(1.0, limit=1000, batch_ageing_seconds=0.0)
    since = dict.fromkeys(Priority, 0)
    for number, event in enumerate(events):
        if event != "serve":
            scheduler.submit(queued(f"{event} {number}", priority=Priority(event)), 0.0)
            continue
        waiting = {priority: depth > 0 for priority, depth in scheduler.depths.items()}
        for name in assigned(scheduler):  # there is one slot
            scheduler.release(AttemptId(name))
            for priority in Priority:
                passed_over = waiting[priority] and not name.startswith(priority)
                since[priority] = since[priority] + 1 if passed_over else 0
        assert since[BATCH] < BATCH_TURN
        assert since[INTERACTIVE] <= 1
