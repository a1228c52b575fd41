"""The waiting line and the choice of worker. Pure: no I/O and no clock; every decision follows from the calls made.

Utterances wait first come, first served. A free slot goes to the ready worker whose work in flight is least, ties
to the one used least lately (least outstanding work, as HAProxy's `leastconn` counts it, but in seconds).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf

from balancer.errors import LineFullError


@dataclass(frozen=True)
class Assignment:
    """Utterance `ticket` goes to worker `worker` now."""

    ticket: str
    worker: str


@dataclass
class _Worker:
    slots: int
    speed: float
    running: dict[str, float] = field(default_factory=dict)
    """Ticket to expected audio seconds."""
    used: int = 0
    """Number of the assignment that used it last."""

    @property
    def backlog(self) -> float:
        """Seconds of work in flight."""
        return sum(self.running.values()) / self.speed


class Scheduler:
    """Tickets in line and in slots. `limit` bounds the line, not the slots."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line: OrderedDict[str, float] = OrderedDict()
        self._workers: dict[str, _Worker] = {}
        self._assigned = 0

    @property
    def depth(self) -> int:
        """Utterances in line."""
        return len(self._line)

    @property
    def running(self) -> int:
        """Utterances that hold a slot."""
        return sum(len(worker.running) for worker in self._workers.values())

    @property
    def free_slots(self) -> int:
        """Slots without an utterance, over all workers."""
        return sum(worker.slots - len(worker.running) for worker in self._workers.values())

    @property
    def expected_wait(self) -> float:
        """Seconds until everything in line and in slots is spoken; infinite without workers."""
        speed = sum(worker.speed * worker.slots for worker in self._workers.values())
        if not speed:
            return inf
        running = sum(sum(worker.running.values()) for worker in self._workers.values())
        return (sum(self._line.values()) + running) / speed

    def worker_of(self, ticket: str) -> str | None:
        """The worker that a ticket holds a slot of; None while it stands in line."""
        return next((name for name, worker in self._workers.items() if ticket in worker.running), None)

    def running_on(self, worker: str) -> int:
        """Utterances that hold a slot of that worker."""
        return len(self._workers[worker].running) if worker in self._workers else 0

    def join(self, worker: str, *, slots: int, speed: float) -> None:
        """A worker is ready, with so many slots, making `speed` audio seconds a second."""
        self._workers[worker] = _Worker(slots, speed)

    def update(self, worker: str, *, speed: float) -> None:
        """A worker's measured speed changed; one that is not above zero says nothing of the next utterance."""
        if worker in self._workers and speed > 0:
            self._workers[worker].speed = speed

    def leave(self, worker: str) -> tuple[str, ...]:
        """A worker is gone; the tickets that ran there, which hold no slot any more."""
        gone = self._workers.pop(worker, None)
        return tuple(gone.running) if gone is not None else ()

    def submit(self, ticket: str, audio_seconds: float) -> None:
        """Put an utterance of that expected length at the end of the line. Raises LineFullError.

        The line is full only when nobody could take the utterance at once.
        """
        if len(self._line) >= self._limit + self.free_slots:
            raise LineFullError(
                f"{len(self._line)} utterances wait already; try again later", retry_after=self.expected_wait
            )
        self._line[ticket] = audio_seconds

    def resubmit(self, ticket: str, audio_seconds: float) -> None:
        """Put an utterance back, at the front: it has waited its turn already."""
        self._line[ticket] = audio_seconds
        self._line.move_to_end(ticket, last=False)

    def release(self, ticket: str) -> None:
        """The utterance is over, wherever it stood: line and slot are free of it."""
        self._line.pop(ticket, None)
        for worker in self._workers.values():
            worker.running.pop(ticket, None)

    def assign(self) -> list[Assignment]:
        """Hand waiting utterances to free slots until one of both runs out."""
        assignments = []
        while self._line:
            free = [name for name, worker in self._workers.items() if len(worker.running) < worker.slots]
            if not free:
                break
            name = min(free, key=self._busyness)
            ticket, audio_seconds = self._line.popitem(last=False)
            self._assigned += 1
            self._workers[name].running[ticket] = audio_seconds
            self._workers[name].used = self._assigned
            assignments.append(Assignment(ticket, name))
        return assignments

    def _busyness(self, name: str) -> tuple[float, int]:
        worker = self._workers[name]
        return worker.backlog, worker.used
