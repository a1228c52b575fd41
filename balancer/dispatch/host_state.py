"""The present state of this host: its queue, its slots and its workers.

Health checks, metrics, the history and the executor of jobs read it. All but `draining` follows from what the
dispatcher and its parts do.
"""

from __future__ import annotations

from collections.abc import Mapping

from balancer.dispatch.attempt_runner import AttemptRunner
from balancer.fleet.fleet import Fleet, WorkerPhase, WorkerProcess
from balancer.fleet.view import WorkerView
from balancer.scheduling.cost_model import CostModel
from balancer.scheduling.playout_delay import StreamPace
from balancer.scheduling.priority import Priority
from balancer.scheduling.scheduler import Scheduler
from worker.contract import Phase


class HostState:
    """The state of a host, as its fleet, scheduler, cost model and attempts have it.

    `processes` are the workers that have joined the scheduler, by name; `speed` is the expected one of a worker, in
    audio seconds per second, as long as none has.
    """

    def __init__(
        self,
        fleet: Fleet,
        scheduler: Scheduler,
        costs: CostModel,
        runner: AttemptRunner,
        processes: Mapping[str, WorkerProcess],
        *,
        speed: float,
    ) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._costs = costs
        self._runner = runner
        self._processes = processes
        self._speed = speed
        self.draining = False
        """Whether this host wants no new clients: `/ready` says so, but requests are still served. Operators set it."""

    @property
    def depth(self) -> int:
        """Number of queued utterances."""
        return self._scheduler.depth

    @property
    def depths(self) -> Mapping[Priority, int]:
        """Number of queued utterances by priority."""
        return self._scheduler.depths

    @property
    def running(self) -> int:
        """Number of taken slots."""
        return self._scheduler.running

    @property
    def free_slots(self) -> int:
        """Number of free slots."""
        return self._scheduler.free_slots

    @property
    def slots(self) -> int:
        """Number of slots of the workers that take utterances."""
        return self._scheduler.slots

    @property
    def max_slots(self) -> int:
        """The most slots that the workers have had at once."""
        return self._scheduler.max_slots

    @property
    def idle(self) -> bool:
        """Whether no utterance is queued or running."""
        return not self._scheduler.depth and not self._scheduler.running

    @property
    def mostly_idle(self) -> bool:
        """Whether fewer than half of the slots are in use, or waited for."""
        return 2 * (self.running + self.depth) < self.slots

    @property
    def room_for_batch(self) -> bool:
        """Whether a batch utterance would start at once, or none is queued.

        One batch utterance may always be queued, so that it can age and get its turn.
        """
        if not self._scheduler.slots:
            return False
        depths = self._scheduler.depths
        return (self._scheduler.free_slots > 0 and not any(depths.values())) or not depths[Priority.BATCH]

    def audio_seconds(self, characters: int) -> float:
        """Expected audio of a text with that many characters, in seconds."""
        return self._costs.audio_seconds(characters)

    @property
    def capacity(self) -> float:
        """Audio seconds that the slots make in a second, all in use; 0 without a worker that takes utterances."""
        return self._costs.capacity(self._scheduler.slots) if self._scheduler.slots else 0.0

    def pace(self, utterances: int) -> StreamPace:
        """What the host makes at its present load of a stream that has so many utterances left."""
        slots, wanted = max(1, self.slots), max(1, utterances, self.running + self.depth)
        used = min(slots, wanted)
        return StreamPace(max(1, min(utterances, slots * utterances // wanted)), self._costs.capacity(used) / used)

    @property
    def characters_per_second(self) -> float:
        """Throughput of all ready workers; if there is none, the expected throughput of one."""
        speeds = [self._costs.speed(name) * process.state.slots for name, process in self._processes.items()]
        return (sum(speeds) or self._speed) / self._costs.audio_seconds(1)

    def why_not_serving(self) -> str | None:
        """Why no worker takes utterances; None if at least one does."""
        if self._scheduler.slots:
            return None
        return self._fleet.down() or "the workers are starting"

    def workers(self) -> list[WorkerView]:
        """Every known worker, by index."""
        running = self._runner.running()
        views = []
        for index, worker in sorted(self._fleet.workers.items()):
            process = worker.process
            if process is None:
                views.append(WorkerView(index, WorkerPhase.GONE, worker.reason, None))
            else:
                reason = process.ejected or process.state.reason
                own = tuple(running.get(process.name, ()))
                views.append(WorkerView(index, self._phase(process), reason, process.state, own))
        return views

    def _phase(self, process: WorkerProcess) -> WorkerPhase:
        if process.retired:
            return WorkerPhase.DRAINING
        match process.state.phase:
            case Phase.READY:
                full = self._scheduler.running_on(process.name) >= process.state.slots
                return WorkerPhase.BUSY if full else WorkerPhase.READY
            case other:
                return WorkerPhase(other.value)
