"""Decides which utterance goes to which worker, and when. Pure: no I/O and no clock; every call is given `now`.

A free slot goes to the ready worker with the fewest seconds of work in flight, ties to the one used least recently
(least outstanding work, as HAProxy's `leastconn`, but in seconds). Retries go first, then interactive utterances, then
batch. Once a batch utterance has waited `batch_ageing_seconds`, every fourth assignment is a batch one, so that neither
priority starves. For the order within a priority, in which the listeners of streams are waited for, see `fair_queue`.

All times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf

from balancer.errors import DeadlineTooShortError, DeadlineUnreachableError, QueueFullError
from balancer.scheduling.fair_queue import FairQueue
from balancer.scheduling.priority import Priority
from balancer.scheduling.queued_utterance import AttemptId, QueuedUtterance, Terms
from balancer.settings.scheduling import SchedulingSettings

BATCH_TURN = 4
"""Every so many assignments, one goes to batch work that has waited `batch_ageing_seconds`."""


@dataclass(frozen=True)
class Assignment:
    """The attempt gets a slot of the worker."""

    attempt_id: AttemptId
    worker: str


@dataclass(frozen=True)
class _Running:
    utterance: QueuedUtterance
    since: float


@dataclass
class _Worker:
    slots: int
    speed: float
    """Audio seconds made per second."""
    open: bool = True
    """Whether it is given utterances."""
    running: dict[AttemptId, _Running] = field(default_factory=dict)
    last_used: int = 0
    """Number of the last assignment to it."""

    @property
    def free(self) -> int:
        return max(0, self.slots - len(self.running)) if self.open else 0

    def remaining(self, now: float) -> list[float]:
        """Expected seconds of work left in each taken slot."""
        return [max(0.0, run.utterance.audio_seconds / self.speed - (now - run.since)) for run in self.running.values()]

    def backlog(self, now: float) -> float:
        """Expected seconds of work in flight."""
        return sum(self.remaining(now)) if self.running else 0.0


class Scheduler:
    """Attempts in queues and in slots. `limit` bounds the queue of each priority; utterances in slots do not count."""

    def __init__(self, settings: SchedulingSettings) -> None:
        self._limit = settings.queue_limit
        self._batch_ageing_seconds = settings.batch_ageing_seconds
        self._queues = {priority: FairQueue(settings.sjf_window) for priority in Priority}
        self._retries: OrderedDict[AttemptId, QueuedUtterance] = OrderedDict()
        self._workers: dict[str, _Worker] = {}
        self._assignments = 0
        self._since_batch = 0
        self.max_slots = 0
        """The most slots that the workers have had at once: those of a host that misses none."""

    # State.

    @property
    def depth(self) -> int:
        """Number of queued utterances."""
        return len(self._retries) + sum(map(len, self._queues.values()))

    @property
    def depths(self) -> Mapping[Priority, int]:
        """Number of queued utterances by priority, retries included."""
        retries = [utterance.terms.priority for utterance in self._retries.values()]
        return {priority: len(queue) + retries.count(priority) for priority, queue in self._queues.items()}

    @property
    def running(self) -> int:
        """Number of taken slots."""
        return sum(len(worker.running) for worker in self._workers.values())

    @property
    def free_slots(self) -> int:
        """Number of free slots of the open workers."""
        return sum(worker.free for worker in self._workers.values())

    @property
    def slots(self) -> int:
        """Number of slots of the open workers."""
        return sum(worker.slots for worker in self._workers.values() if worker.open)

    def worker_of(self, attempt_id: AttemptId) -> str | None:
        """The worker that runs the attempt; None if it has no slot."""
        return next((name for name, worker in self._workers.items() if attempt_id in worker.running), None)

    def open_besides(self, workers: Set[str]) -> int:
        """Number of other workers that are given utterances."""
        return sum(worker.open and name not in workers for name, worker in self._workers.items())

    def running_on(self, worker: str) -> int:
        """Number of taken slots of that worker."""
        return len(self._workers[worker].running) if worker in self._workers else 0

    def expected_wait(self, utterance: QueuedUtterance, now: float) -> float:
        """Seconds until an utterance queued now would get its slot; infinite without open workers."""
        if self.free_slots > self.depth:
            return 0.0
        if not self.slots:
            return inf
        priority, duration = utterance.terms.priority, self._duration(utterance)
        ahead = sum(self._duration(retry) for retry in self._retries.values())
        ahead += self._queues[priority].seconds_ahead_of(utterance, duration=duration, now=now)
        if priority is Priority.BATCH:
            ahead += self._queues[Priority.INTERACTIVE].seconds
        in_flight = [seconds for worker in self._workers.values() if worker.open for seconds in worker.remaining(now)]
        return _seconds_until_free([0.0] * self.free_slots + in_flight, ahead)

    # Workers.

    def join(self, worker: str, *, slots: int, speed: float) -> None:
        """Add a worker that is ready. `speed`: audio seconds made per second."""
        self._workers[worker] = _Worker(slots, speed)
        self.max_slots = max(self.max_slots, self.slots)

    def update(self, worker: str, *, speed: float) -> None:
        """Set the speed of a worker, if it is known."""
        if worker in self._workers and speed > 0:
            self._workers[worker].speed = speed

    def close(self, worker: str) -> None:
        """Give a worker no new utterances; those that run on it stay."""
        if worker in self._workers:
            self._workers[worker].open = False

    def reopen(self, worker: str) -> None:
        """Give a worker utterances again."""
        if worker in self._workers:
            self._workers[worker].open = True

    def leave(self, worker: str) -> None:
        """Remove a worker, with the slots that attempts have of it."""
        self._workers.pop(worker, None)

    # Utterances.

    def submit(self, utterance: QueuedUtterance, now: float) -> None:
        """Queue an utterance. Raises QueueFullError, DeadlineTooShortError, DeadlineUnreachableError.

        Free slots extend the limit of the queue, since they take utterances from it at once.
        """
        terms = utterance.terms
        queue = self._queues[terms.priority]
        full = len(queue) >= self._limit and len(queue) >= self._limit + self.free_slots
        if full and not terms.admitted:
            raise QueueFullError(
                f"{len(queue)} utterances are queued already; try again later",
                retry_after=self.expected_wait(utterance, now),
            )
        if terms.deadline is not None and self.slots:
            self._check_deadline(utterance, terms.deadline - now, self.expected_wait(utterance, now))
        queue.add(utterance, duration=self._duration(utterance), now=now)

    def check_text(self, audio_seconds: float, deadline: float, now: float) -> None:
        """Check that a text of several utterances can be spoken by the deadline, on all slots at once.

        Raises DeadlineTooShortError.
        """
        speed = sum(worker.slots * worker.speed for worker in self._workers.values() if worker.open)
        if speed and audio_seconds / speed > deadline - now:
            raise _too_short(audio_seconds / speed, deadline - now)

    def improve(self, attempt_id: AttemptId, terms: Terms, now: float) -> None:
        """A request with these terms waits for a queued utterance, too: it gets that place if it is the better one.

        An interactive place is better than a batch one; among equals, that of the earlier round. A full queue takes
        nothing in. Whoever listens to the audio while it is made is waited for wherever the utterance is.
        """
        current = next((queue for queue in self._queues.values() if attempt_id in queue), None)
        if current is None:
            return
        if terms.playout_deadline is not None:
            current.listen(attempt_id, terms.playout_deadline)
        utterance = current[attempt_id]
        duration = self._duration(utterance)
        better = self._queues[terms.priority]
        if better is current:
            if better.round_if_added(terms, duration=duration, now=now) >= current.round_of(attempt_id):
                return
        elif not terms.priority.precedes(utterance.terms.priority) or len(better) >= self._limit:
            return
        current.remove(attempt_id)
        own = utterance.terms
        terms = replace(terms, deadline=own.deadline, playout_deadline=own.playout_deadline)
        better.add(replace(utterance, terms=terms), duration=duration, now=now)

    def resubmit(self, utterance: QueuedUtterance) -> None:
        """Queue a retry, before all other utterances: this one has waited its turn already.

        It waits for another worker than those it avoids, if there is one.
        """
        self._retries[utterance.attempt_id] = utterance

    def release(self, attempt_id: AttemptId) -> None:
        """Remove an attempt from the queue and from its slot, wherever it is."""
        self._retries.pop(attempt_id, None)
        for queue in self._queues.values():
            queue.remove(attempt_id)
        for worker in self._workers.values():
            worker.running.pop(attempt_id, None)

    def assign(self, now: float) -> list[Assignment]:
        """Give free slots to queued utterances until there are no more of one of them."""
        assignments = self._assign_retries(now) if self._retries else []
        while any(self._queues.values()) and (worker := self._least_busy(now)) is not None:
            utterance = self._next(now)
            self._start(utterance, worker, now)
            assignments.append(Assignment(utterance.attempt_id, worker))
        return assignments

    def _assign_retries(self, now: float) -> list[Assignment]:
        assignments = []
        for retry in list(self._retries.values()):
            avoided = retry.avoided if self.open_besides(retry.avoided) else frozenset()
            if (worker := self._least_busy(now, without=avoided)) is not None:
                del self._retries[retry.attempt_id]
                self._start(retry, worker, now)
                assignments.append(Assignment(retry.attempt_id, worker))
        return assignments

    def hedge(self, hedge: QueuedUtterance, now: float, *, beside: AttemptId) -> Assignment | None:
        """Give a hedge a slot on another worker than attempt `beside` has.

        None if no other worker has a free slot, or utterances are queued.
        """
        if self.depth:
            return None
        running_on = self.worker_of(beside)
        worker = self._least_busy(now, without=hedge.avoided | ({running_on} if running_on else set()))
        if worker is None:
            return None
        self._start(hedge, worker, now)
        return Assignment(hedge.attempt_id, worker)

    def _start(self, utterance: QueuedUtterance, worker: str, now: float) -> None:
        self._assignments += 1
        self._workers[worker].running[utterance.attempt_id] = _Running(utterance, now)
        self._workers[worker].last_used = self._assignments

    def _next(self, now: float) -> QueuedUtterance:
        interactive, batch = self._queues[Priority.INTERACTIVE], self._queues[Priority.BATCH]
        oldest = batch.oldest_arrival()
        aged = oldest is not None and now - oldest >= self._batch_ageing_seconds
        if interactive and not (aged and self._since_batch >= BATCH_TURN - 1):
            self._since_batch += 1
            return interactive.pop(now)
        self._since_batch = 0
        return batch.pop(now)

    def _least_busy(self, now: float, without: Set[str] = frozenset()) -> str | None:
        free = [name for name, worker in self._workers.items() if worker.free and name not in without]
        return min(
            free, key=lambda name: (self._workers[name].backlog(now), self._workers[name].last_used), default=None
        )

    def _duration(self, utterance: QueuedUtterance) -> float:
        """Expected seconds on a worker of average speed."""
        speeds = [worker.speed for worker in self._workers.values()]
        return utterance.audio_seconds * len(speeds) / sum(speeds) if speeds else utterance.audio_seconds

    def _check_deadline(self, utterance: QueuedUtterance, remaining: float, wait: float) -> None:
        duration = self._duration(utterance)
        if wait + duration <= remaining:
            return
        if duration > remaining:
            raise _too_short(duration, remaining)
        raise DeadlineUnreachableError(
            f"about {wait:.1f} s of work are queued before this text, and the deadline leaves {remaining:.1f} s; "
            "try again later or elsewhere",
            retry_after=wait + duration - remaining,
        )


def _too_short(duration: float, remaining: float) -> DeadlineTooShortError:
    return DeadlineTooShortError(
        f"this text takes about {duration:.2g} s to speak, and the deadline leaves "
        f"{max(0.0, remaining):.2g} s; send a shorter text or a later deadline",
        param="deadline_ms",
    )


def _seconds_until_free(remaining: list[float], ahead: float) -> float:
    """Seconds until a slot is free for the next utterance.

    `remaining` are the seconds of work left in each slot, `ahead` those queued before the utterance; they are taken to
    be spread evenly over the slots that become free first.
    """
    total = ahead
    for slots, (seconds, following) in enumerate(pairwise([*sorted(remaining), inf]), start=1):
        total += seconds
        if total <= slots * following:
            break
    return total / slots
