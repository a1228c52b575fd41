from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from balancer.errors import LineFullError
from balancer.scheduler import Assignment, Scheduler

LIMIT = 4
# Sums and quotients of these are exact, so that a tie is a tie.
SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0])
SPEEDS = st.sampled_from([0.5, 1.0, 2.0])


@dataclass
class Worker:
    slots: int
    speed: float
    running: dict[str, float] = field(default_factory=dict)
    used: int = 0

    @property
    def backlog(self) -> float:
        return sum(self.running.values()) / self.speed


class Events(RuleBasedStateMachine):
    """Whatever may happen, in any order, against a model that says who must be where."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMIT)
        self.line: list[str] = []
        self.seconds: dict[str, float] = {}
        self.workers: dict[str, Worker] = {}
        self.lost: list[str] = []  # their worker is gone; whoever ran them has not put them back yet
        self.assignments = 0
        self.joined = 0

    @property
    def free(self) -> int:
        return sum(worker.slots - len(worker.running) for worker in self.workers.values())

    @property
    def running(self) -> list[str]:
        return [ticket for worker in self.workers.values() for ticket in worker.running]

    @rule(seconds=SECONDS)
    def submit(self, seconds: float) -> None:
        ticket = f"t{len(self.seconds)}"
        if len(self.line) >= LIMIT + self.free:
            with pytest.raises(LineFullError) as caught:
                self.scheduler.submit(ticket, seconds)
            assert caught.value.retry_after == self.scheduler.expected_wait
            return
        self.scheduler.submit(ticket, seconds)
        self.seconds[ticket] = seconds
        self.line.append(ticket)

    @rule()
    def assign(self) -> None:
        for ticket, name in ((given.ticket, given.worker) for given in self.scheduler.assign()):
            assert ticket == self.line.pop(0), "not the first in line"
            worker = self.workers[name]
            assert len(worker.running) < worker.slots, "a slot used twice"
            choices = [other for other in self.workers.values() if len(other.running) < other.slots]
            assert (worker.backlog, worker.used) == min((other.backlog, other.used) for other in choices)
            self.assignments += 1
            worker.used = self.assignments
            worker.running[ticket] = self.seconds[ticket]
        assert not self.line or not self.free, "somebody waits beside a free slot"

    @rule(slots=st.integers(1, 3), speed=SPEEDS)
    def join(self, slots: int, speed: float) -> None:
        name = f"w{self.joined}"
        self.joined += 1
        self.scheduler.join(name, slots=slots, speed=speed)
        self.workers[name] = Worker(slots, speed)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        gone = self.workers.pop(name)
        assert sorted(self.scheduler.leave(name)) == sorted(gone.running)
        self.lost += gone.running

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), speed=SPEEDS)
    def update(self, data: st.DataObject, speed: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        self.scheduler.update(name, speed=speed)
        self.workers[name].speed = speed

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def resubmit(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.lost))
        self.lost.remove(ticket)
        self.scheduler.resubmit(ticket, self.seconds[ticket])
        self.line.insert(0, ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def try_again(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.running))
        self.release_one(ticket)
        self.scheduler.resubmit(ticket, self.seconds[ticket])
        self.line.insert(0, ticket)

    @precondition(lambda self: self.seconds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        # Any ticket that ever was: over already, in line, in a slot or lost.
        self.release_one(data.draw(st.sampled_from(sorted(self.seconds))))

    @rule(name=st.sampled_from(["never", "w0"]))
    def unknown(self, name: str) -> None:
        if name not in self.workers:
            assert self.scheduler.leave(name) == ()
            self.scheduler.update(name, speed=1.0)
            assert self.scheduler.running_on(name) == 0
        self.scheduler.release("never")

    def release_one(self, ticket: str) -> None:
        self.scheduler.release(ticket)
        if ticket in self.line:
            self.line.remove(ticket)
        if ticket in self.lost:
            self.lost.remove(ticket)
        for worker in self.workers.values():
            worker.running.pop(ticket, None)

    @invariant()
    def counts_agree(self) -> None:
        assert self.scheduler.depth == len(self.line)
        assert self.scheduler.running == len(self.running) == len(set(self.running))
        assert not set(self.running) & set(self.line)
        assert self.scheduler.free_slots == self.free
        assert all(self.scheduler.running_on(name) == len(worker.running) for name, worker in self.workers.items())

    @invariant()
    def wait_agrees(self) -> None:
        speed = sum(worker.speed * worker.slots for worker in self.workers.values())
        work = sum(self.seconds[ticket] for ticket in [*self.line, *self.running])
        assert self.scheduler.expected_wait == (work / speed if speed else inf)

    def teardown(self) -> None:
        """Nobody is lost: room enough takes all who wait, in order."""
        self.assign()
        waiting = list(self.line)
        self.scheduler.join("last", slots=len(waiting) + 1, speed=1.0)
        assert [given.ticket for given in self.scheduler.assign()] == waiting
        assert self.scheduler.assign() == []
        assert self.scheduler.depth == 0


Events.TestCase.settings = settings(max_examples=200, stateful_step_count=50)
TestEvents = Events.TestCase


# Examples


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(limit=3)


def submit(scheduler: Scheduler, *tickets: str, seconds: float = 1.0) -> None:
    for ticket in tickets:
        scheduler.submit(ticket, seconds)


def test_without_workers_all_wait(scheduler: Scheduler) -> None:
    submit(scheduler, "a", "b")
    assert scheduler.assign() == []
    assert (scheduler.depth, scheduler.running, scheduler.free_slots) == (2, 0, 0)
    assert scheduler.expected_wait == inf


def test_an_empty_line_gives_nobody_work(scheduler: Scheduler) -> None:
    scheduler.join("w", slots=1, speed=1.0)
    assert scheduler.assign() == []
    assert scheduler.expected_wait == 0


def test_first_come_first_served(scheduler: Scheduler) -> None:
    submit(scheduler, "b", "a", "c")
    scheduler.join("w", slots=2, speed=1.0)
    assert [given.ticket for given in scheduler.assign()] == ["b", "a"]
    scheduler.release("b")
    assert scheduler.assign() == [Assignment("c", "w")]


def test_who_comes_back_goes_first(scheduler: Scheduler) -> None:
    scheduler.join("w", slots=1, speed=1.0)
    submit(scheduler, "a", "b", "c")
    scheduler.assign()
    assert scheduler.leave("w") == ("a",)
    scheduler.resubmit("a", 1.0)
    scheduler.join("x", slots=1, speed=1.0)
    assert scheduler.assign() == [Assignment("a", "x")]


def test_who_comes_back_finds_room_in_a_full_line(scheduler: Scheduler) -> None:
    scheduler.join("w", slots=1, speed=1.0)
    submit(scheduler, "a")
    scheduler.assign()
    submit(scheduler, "b", "c", "d")
    scheduler.leave("w")
    scheduler.resubmit("a", 1.0)
    assert scheduler.depth == 4


def test_work_goes_where_the_least_of_it_is(scheduler: Scheduler) -> None:
    scheduler.join("v", slots=2, speed=1.0)
    scheduler.join("w", slots=2, speed=1.0)
    submit(scheduler, "long", seconds=10.0)
    submit(scheduler, "short", "shorter", seconds=1.0)
    assert scheduler.assign() == [Assignment("long", "v"), Assignment("short", "w"), Assignment("shorter", "w")]


def test_a_worker_twice_as_fast_has_half_the_backlog(scheduler: Scheduler) -> None:
    scheduler.join("slow", slots=2, speed=1.0)
    scheduler.join("fast", slots=2, speed=4.0)
    submit(scheduler, "a", seconds=1.0)
    submit(scheduler, "b", seconds=2.0)
    submit(scheduler, "c", seconds=1.0)
    # Backlogs when c comes: 1 s on the slow one, half a second on the fast one.
    assert scheduler.assign() == [Assignment("a", "slow"), Assignment("b", "fast"), Assignment("c", "fast")]


def test_a_new_speed_counts_from_then_on(scheduler: Scheduler) -> None:
    scheduler.join("v", slots=2, speed=1.0)
    scheduler.join("w", slots=2, speed=1.0)
    submit(scheduler, "a", seconds=2.0)
    submit(scheduler, "b", seconds=1.0)
    scheduler.assign()
    scheduler.update("v", speed=4.0)
    submit(scheduler, "c")
    assert scheduler.assign() == [Assignment("c", "v")]


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_speed_that_cannot_be_is_no_news(scheduler: Scheduler, speed: float) -> None:
    scheduler.join("v", slots=2, speed=1.0)
    scheduler.join("w", slots=2, speed=1.0)
    scheduler.update("v", speed=speed)
    submit(scheduler, "a", "b", "c")
    assert [given.worker for given in scheduler.assign()] == ["v", "w", "v"]
    assert scheduler.expected_wait == 3 / 4


def test_equal_workers_take_turns(scheduler: Scheduler) -> None:
    for name in "uvw":
        scheduler.join(name, slots=1, speed=1.0)
    turns = []
    for number in range(6):
        submit(scheduler, str(number))
        turns += [given.worker for given in scheduler.assign()]
        scheduler.release(str(number))
    assert turns == ["u", "v", "w"] * 2


def test_the_line_is_bounded(scheduler: Scheduler) -> None:
    submit(scheduler, "a", "b", "c")
    with pytest.raises(LineFullError, match="3 utterances wait already"):
        scheduler.submit("d", 1.0)
    assert scheduler.depth == 3
    scheduler.release("b")
    submit(scheduler, "d")


def test_free_slots_are_room_beside_the_line(scheduler: Scheduler) -> None:
    scheduler.join("w", slots=2, speed=1.0)
    submit(scheduler, *"abcde")
    with pytest.raises(LineFullError):
        scheduler.submit("f", 1.0)
    assert len(scheduler.assign()) == 2


def test_a_full_line_says_when_to_come_again(scheduler: Scheduler) -> None:
    scheduler.join("w", slots=2, speed=2.0)
    submit(scheduler, "a", "b", seconds=6.0)
    scheduler.assign()
    submit(scheduler, "c", "d", "e", seconds=4.0)
    with pytest.raises(LineFullError) as caught:
        scheduler.submit("f", 1.0)
    assert caught.value.retry_after == (2 * 6.0 + 3 * 4.0) / (2 * 2.0)


def test_nobody_knows_when_to_come_again_without_workers() -> None:
    scheduler = Scheduler(limit=1)
    submit(scheduler, "a")
    with pytest.raises(LineFullError) as caught:
        scheduler.submit("b", 1.0)
    assert caught.value.retry_after is not None
    assert not isfinite(caught.value.retry_after)


def test_who_leaves_the_line_frees_a_place_and_runs_nowhere(scheduler: Scheduler) -> None:
    submit(scheduler, "a", "b")
    scheduler.release("a")
    scheduler.join("w", slots=2, speed=1.0)
    assert scheduler.assign() == [Assignment("b", "w")]


def test_a_worker_that_left_gets_nothing(scheduler: Scheduler) -> None:
    scheduler.join("w", slots=1, speed=1.0)
    scheduler.leave("w")
    submit(scheduler, "a")
    assert scheduler.assign() == []
    assert scheduler.leave("w") == ()
