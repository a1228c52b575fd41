"""One host in a simulation: the real scheduler, with slots that take the time of a `ServiceModel`. Pure.

Time is the caller's: it asks when something happens next, and tells when it has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random

from balancer.capacity.service_model import ServiceModel
from balancer.scheduling.queued_utterance import NOTHING_HEARD, AttemptId, QueuedUtterance, Terms
from balancer.scheduling.scheduler import Scheduler
from balancer.settings.scheduling import SchedulingSettings

TOLERANCE = 1e-12
"""Times that differ by this share of the clock are equal: sums of floats are not exact."""


@dataclass(frozen=True)
class HostSize:
    """Workers and their slots."""

    workers: int
    slots: int = 1
    """Of each worker."""

    @property
    def all_slots(self) -> int:
        """Of all workers together."""
        return self.workers * self.slots


@dataclass
class SimulatedRequest:
    """A text on its way, and its answer. Times are in seconds."""

    due: float
    segments: Sequence[int]
    """Characters of each."""
    short: bool = False
    """Whether it is a text of one sentence."""
    stream: bool = False
    begun: int = 0
    """Segments that were queued."""
    finished: list[float | None] = field(default_factory=list)
    """When each segment was finished; None: it is not yet."""
    answered: float | None = None
    first_sound: float | None = None
    """When a stream's first audio was there."""
    gaps: int = 0


class SimulatedHost:
    """A host. `on_answer` gets each request when its answer is complete."""

    def __init__(
        self, size: HostSize, model: ServiceModel, rng: Random, on_answer: Callable[[SimulatedRequest], None]
    ) -> None:
        self.size = size
        self.requests = 0
        """Requests under way."""
        self._model = model
        self._rng = rng
        self._on_answer = on_answer
        self._scheduler = Scheduler(SchedulingSettings(queue_limit=10**9))
        shares = [used / size.all_slots for used in range(size.all_slots + 1)]
        self._slowdowns = [model.slowdown_at(share) for share in shares]
        self._overheads = [max(0.0, model.overhead_at(share) - model.balancer_seconds) for share in shares]
        for number in range(size.workers):
            self._scheduler.join(str(number), slots=size.slots, speed=1 / self._slowdowns[-1])
        self._waiting: dict[AttemptId, tuple[SimulatedRequest, int]] = {}
        self._running: list[tuple[float, AttemptId]] = []
        """Utterances on slots, by the progress at which they are finished."""
        self._progress = 0.0
        """Seconds that an utterance would have advanced since the start on an idle host."""
        self._progress_at = 0.0
        self._arrivals: list[tuple[float, int, SimulatedRequest]] = []
        self._answers: list[tuple[float, int, SimulatedRequest]] = []
        self._balancer_free_at = 0.0
        self._count = 0

    @property
    def utterances(self) -> int:
        """Number of utterances in slots and in the queue."""
        return self._scheduler.running + self._scheduler.depth

    def receive(self, request: SimulatedRequest, now: float) -> None:
        """A request arrives. The balancer, one process, handles those before it first."""
        self.requests += 1
        self._balancer_free_at = max(self._balancer_free_at, now) + self._model.balancer_seconds * len(request.segments)
        self._count += 1
        heapq.heappush(self._arrivals, (self._balancer_free_at, self._count, request))

    def next_event(self) -> float:
        """When something happens next; infinite if nothing does."""
        times = [heap[0][0] for heap in (self._arrivals, self._answers) if heap]
        if self._running:
            times.append(self._progress_at + max(0.0, self._running[0][0] - self._progress) * self._slowdown)
        return min(times, default=inf)

    def advance(self, now: float) -> None:
        """Let everything happen that is due by now."""
        self._progress += (now - self._progress_at) / self._slowdown
        self._progress_at = now
        while self._running and self._running[0][0] <= self._progress + TOLERANCE * max(1.0, now):
            self._finish(heapq.heappop(self._running)[1], now)
        while self._arrivals and self._arrivals[0][0] <= now:
            request = heapq.heappop(self._arrivals)[2]
            request.finished = [None] * len(request.segments)
            # As the speech service does: as many segments at once as there are slots.
            for _ in range(min(len(request.segments), self.size.all_slots)):
                self._queue_next(request, now)
        for assignment in self._scheduler.assign(now):
            request, number = self._waiting[assignment.attempt_id]
            work = self._model.expected(request.segments[number]) * self._rng.choice(self._model.spread)
            heapq.heappush(self._running, (self._progress + work, assignment.attempt_id))
        while self._answers and self._answers[0][0] <= now:
            self._answer(heapq.heappop(self._answers)[2], now)

    @property
    def _slowdown(self) -> float:
        return self._slowdowns[len(self._running)]

    def _queue_next(self, request: SimulatedRequest, now: float) -> None:
        number = request.begun
        request.begun += 1
        self._count += 1
        attempt_id = AttemptId(str(self._count))
        playout_deadline = self._playout_deadline(request, number, now) if request.stream else None
        expected = self._model.expected(request.segments[number])
        utterance = QueuedUtterance(attempt_id, expected, Terms(admitted=number > 0, playout_deadline=playout_deadline))
        self._waiting[attempt_id] = (request, number)
        self._scheduler.submit(utterance, now)

    def _playout_deadline(self, request: SimulatedRequest, number: int, now: float) -> float:
        if number == 0:
            return NOTHING_HEARD
        audio = self._model.audio_per_character * sum(request.segments[:number])
        return (now if request.first_sound is None else request.first_sound) + audio

    def _finish(self, attempt_id: AttemptId, now: float) -> None:
        self._scheduler.release(attempt_id)
        request, number = self._waiting.pop(attempt_id)
        request.finished[number] = now
        if number == 0 and request.stream:
            request.first_sound = now + self._overhead
        if request.begun < len(request.segments):
            self._queue_next(request, now)
        if all(finished is not None for finished in request.finished):
            self._count += 1
            heapq.heappush(self._answers, (now + self._overhead, self._count, request))

    @property
    def _overhead(self) -> float:
        return self._overheads[len(self._running)]

    def _answer(self, request: SimulatedRequest, now: float) -> None:
        self.requests -= 1
        request.answered = now
        if request.first_sound is not None:
            request.gaps = self._gaps(request, request.first_sound)
        self._on_answer(request)

    def _gaps(self, request: SimulatedRequest, first_sound: float) -> int:
        """Times that the listener of a stream had nothing to play, who began at its first sound."""
        gaps, played_until = 0, first_sound
        overhead = first_sound - (request.finished[0] or 0.0)
        ready = 0.0
        for finished, characters in zip(request.finished, request.segments, strict=True):
            ready = max(ready, (finished or 0.0) + overhead)
            gaps += ready > played_until + 1e-6
            played_until = max(played_until, ready) + self._model.audio_per_character * characters
        return gaps
