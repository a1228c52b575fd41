"""Which utterance goes to which worker, and when. Pure: no I/O and no clock; decisions follow from calls and `now`.

A free slot goes to the ready worker with the least seconds of work in flight, ties to the one used least lately (least
outstanding work, as HAProxy's `leastconn` counts it, but in seconds). Utterances that lost their worker go first, then
interactive ones, then batch; a batch utterance that has waited for `batch_ageing_seconds` seconds makes every fourth
assignment a batch one, so that neither side starves. Within a priority, see `line`.

All times are seconds on one clock that never goes back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from balancer.errors import DeadlineTooShortError, DeadlineUnreachableError, QueueFullError
from balancer.scheduling.fair_queue import Line, Order
from balancer.scheduling.priority import Priority

BATCH_TURN = 4
"""One in so many assignments goes to batch work that has waited its patience out."""


@dataclass(frozen=True)
class Assignment:
    """The utterance of `ticket` goes to worker `worker` now."""

    ticket: str
    worker: str


@dataclass(frozen=True)
class _Running:
    order: Order
    since: float


@dataclass
class _Worker:
    slots: int
    speed: float
    open: bool = True
    """Whether it is given utterances."""
    running: dict[str, _Running] = field(default_factory=dict)
    used: int = 0
    """Number of the assignment that used it last."""

    @property
    def free(self) -> int:
        return max(0, self.slots - len(self.running)) if self.open else 0

    def left(self, now: float) -> list[float]:
        """Seconds of work left in each slot that is taken, by what was expected of it."""
        return [max(0.0, run.order.audio_seconds / self.speed - (now - run.since)) for run in self.running.values()]

    def backlog(self, now: float) -> float:
        """Seconds of work left in flight."""
        return sum(self.left(now))


class Scheduler:
    """Tickets in lines and in slots. `limit` bounds each priority's line, not the slots."""

    def __init__(self, limit: int, *, sjf_window: float = 0.0, batch_ageing_seconds: float = 60.0) -> None:
        self._limit = limit
        self._batch_ageing_seconds = batch_ageing_seconds
        self._lines = {priority: Line(sjf_window) for priority in Priority}
        self._again: OrderedDict[str, Order] = OrderedDict()
        self._workers: dict[str, _Worker] = {}
        self._assigned = 0
        self._since_batch = 0

    # What it knows.

    @property
    def depth(self) -> int:
        """Utterances in line."""
        return len(self._again) + sum(map(len, self._lines.values()))

    @property
    def depths(self) -> Mapping[Priority, int]:
        """Utterances in line by priority; those that wait to run again count as what they are."""
        again = [order.priority for order in self._again.values()]
        return {priority: len(line) + again.count(priority) for priority, line in self._lines.items()}

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return sum(len(worker.running) for worker in self._workers.values())

    @property
    def free_slots(self) -> int:
        """Slots without an utterance, over all workers that are given any."""
        return sum(worker.free for worker in self._workers.values())

    @property
    def slots(self) -> int:
        """Slots of all workers that are given utterances."""
        return sum(worker.slots for worker in self._workers.values() if worker.open)

    def worker_of(self, ticket: str) -> str | None:
        """The worker that a ticket holds a slot of; None while it stands in line."""
        return next((name for name, worker in self._workers.items() if ticket in worker.running), None)

    def running_on(self, worker: str) -> int:
        """Utterances that hold a slot of that worker."""
        return len(self._workers[worker].running) if worker in self._workers else 0

    def expected_wait(self, order: Order, now: float) -> float:
        """Seconds until an utterance that joined now would get its slot; infinite without workers."""
        if self.free_slots > self.depth:
            return 0.0
        if not self.slots:
            return inf
        duration = self._duration(order)
        work = sum(self._duration(again) for again in self._again.values())
        work += self._lines[order.priority].ahead_of(order, duration=duration, now=now)
        if order.priority is Priority.BATCH:
            work += self._lines[Priority.INTERACTIVE].work
        left = [seconds for worker in self._workers.values() if worker.open for seconds in worker.left(now)]
        return _filled([0.0] * self.free_slots + left, work)

    # Workers.

    def join(self, worker: str, *, slots: int, speed: float) -> None:
        """A worker is ready, with so many slots, making `speed` audio seconds a second."""
        self._workers[worker] = _Worker(slots, speed)

    def update(self, worker: str, *, speed: float) -> None:
        """What is known of a worker's speed changed."""
        if worker in self._workers and speed > 0:
            self._workers[worker].speed = speed

    def close(self, worker: str) -> None:
        """Give a worker no more utterances; what it has, it finishes."""
        if worker in self._workers:
            self._workers[worker].open = False

    def reopen(self, worker: str) -> None:
        """Give a worker utterances again."""
        if worker in self._workers:
            self._workers[worker].open = True

    def leave(self, worker: str) -> tuple[str, ...]:
        """A worker is gone; the tickets that ran there, which hold no slot any more."""
        gone = self._workers.pop(worker, None)
        return tuple(gone.running) if gone is not None else ()

    # Utterances.

    def submit(self, order: Order, now: float) -> None:
        """Put an utterance in line. Raises QueueFullError, DeadlineTooShortError, DeadlineUnreachableError.

        The line is full only when nobody could take the utterance at once.
        """
        line = self._lines[order.priority]
        if len(line) >= self._limit + self.free_slots:
            raise QueueFullError(
                f"{len(line)} utterances wait already; try again later", retry_after=self.expected_wait(order, now)
            )
        if order.deadline is not None and self.slots:
            wait = self.expected_wait(order, now)
            self._check_deadline(order, order.deadline - now, wait)
        line.add(order, duration=self._duration(order), now=now)

    def resubmit(self, order: Order) -> None:
        """Put an utterance back, before all others: it has waited its turn already."""
        self._again[order.ticket] = order

    def release(self, ticket: str) -> None:
        """The utterance is over, wherever it stood: line and slot are free of it."""
        self._again.pop(ticket, None)
        for line in self._lines.values():
            line.remove(ticket)
        for worker in self._workers.values():
            worker.running.pop(ticket, None)

    def assign(self, now: float) -> list[Assignment]:
        """Hand waiting utterances to free slots until one of both runs out."""
        assignments = []
        while self.depth and (worker := self._least_busy(now)) is not None:
            order = self._next(now)
            self._start(order, worker, now)
            assignments.append(Assignment(order.ticket, worker))
        return assignments

    def hedge(self, order: Order, now: float, *, beside: str) -> Assignment | None:
        """A second slot for what runs as ticket `beside`, on another worker; None unless one idles and nobody waits."""
        if self.depth:
            return None
        worker = self._least_busy(now, without=self.worker_of(beside))
        if worker is None:
            return None
        self._start(order, worker, now)
        return Assignment(order.ticket, worker)

    def _start(self, order: Order, worker: str, now: float) -> None:
        self._assigned += 1
        self._workers[worker].running[order.ticket] = _Running(order, now)
        self._workers[worker].used = self._assigned

    def _next(self, now: float) -> Order:
        if self._again:
            return self._again.popitem(last=False)[1]
        interactive, batch = self._lines[Priority.INTERACTIVE], self._lines[Priority.BATCH]
        oldest = batch.oldest()
        aged = oldest is not None and now - oldest >= self._batch_ageing_seconds
        if interactive and not (aged and self._since_batch >= BATCH_TURN - 1):
            self._since_batch += 1
            return interactive.pop(now)
        self._since_batch = 0
        return batch.pop(now)

    def _least_busy(self, now: float, without: str | None = None) -> str | None:
        free = [name for name, worker in self._workers.items() if worker.free and name != without]
        return min(free, key=lambda name: (self._workers[name].backlog(now), self._workers[name].used), default=None)

    def _duration(self, order: Order) -> float:
        """Expected seconds on a worker of middling speed."""
        speeds = [worker.speed for worker in self._workers.values()]
        return order.audio_seconds * len(speeds) / sum(speeds) if speeds else order.audio_seconds

    def _check_deadline(self, order: Order, left: float, wait: float) -> None:
        duration = self._duration(order)
        if wait + duration <= left:
            return
        if duration > left:
            raise DeadlineTooShortError(
                f"this text takes about {duration:.2g} s to speak, and the deadline leaves {max(0.0, left):.2g} s; "
                "send a shorter text or a later deadline",
                param="deadline_ms",
            )
        raise DeadlineUnreachableError(
            f"about {wait:.1f} s of work wait before this text, and the deadline leaves {left:.1f} s; "
            "try again later or elsewhere",
            retry_after=wait + duration - left,
        )


def _filled(left: list[float], work: float) -> float:
    """Seconds until work is done that always goes to the slot with the least of it left: the first then free."""
    poured = work
    for slots, (seconds, following) in enumerate(pairwise([*sorted(left), inf]), start=1):
        poured += seconds
        if poured <= slots * following:
            break
    return poured / slots
