"""One utterance to one worker: waits for a slot, listens to the audio, and tries elsewhere if the worker dies.

Joins the pure scheduler to the live fleet: every change of either is followed by handing out what can be handed out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from balancer.connection import UtteranceRefusedError, WorkerFullError, WorkerLostError
from balancer.errors import InvalidRequestError, NotServingError, PoisonedError, SynthesisError
from balancer.fleet import Fleet, Incarnation, WorkerPhase
from balancer.scheduler import Scheduler
from balancer.telemetry import Telemetry
from worker.cards import EngineCard
from worker.contract import Phase, Utterance, WorkerState

log = logging.getLogger(__name__)

DEATHS_TO_POISON = 2
"""An utterance that was running on this many workers as they died is not given to another."""

SETTLE_SECONDS = 0.02
"""Pause between looks at a worker that is giving up an utterance."""


@dataclass(frozen=True)
class WorkerView:
    """One worker for operators: the balancer's view of it and its own last report."""

    index: int
    phase: WorkerPhase
    reason: str | None
    state: WorkerState | None


class Dispatcher:
    """Runs utterances on the fleet. It is the fleet's listener."""

    def __init__(self, fleet: Fleet, scheduler: Scheduler, telemetry: Telemetry, card: EngineCard) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._telemetry = telemetry
        self._card = card
        self._incarnations: dict[str, Incarnation] = {}
        self._waiting: dict[str, asyncio.Future[Incarnation]] = {}
        self._settling: set[asyncio.Task[None]] = set()

    async def synthesize(self, utterance: Utterance) -> bytes:
        """The whole utterance as PCM. Cancelling it cancels the utterance wherever it stands.

        Raises LineFullError, NotServingError, PoisonedError, SynthesisError, InvalidRequestError.
        """
        if (reason := self._fleet.down()) is not None:
            raise not_serving(reason)
        expected = len(utterance.text) * self._card.seconds_per_character
        with self._ticket(utterance.id, expected):
            deaths = 0
            while True:
                incarnation = await self._slot(utterance.id)
                try:
                    return await _listen(incarnation, utterance)
                except UtteranceRefusedError as error:
                    raise _answer(error) from error
                except WorkerFullError:
                    await self._settle(incarnation, utterance.id)
                except WorkerLostError as error:
                    self._fleet.lose(incarnation, str(error))
                    # One that never took the utterance did not die of it.
                    deaths += error.accepted
                    if deaths >= DEATHS_TO_POISON:
                        raise PoisonedError(
                            f"{deaths} workers died while they spoke utterance {utterance.id}; it is not tried again"
                        ) from error
                    self._telemetry.retries.inc()
                    log.warning("utterance %s runs again: worker %d was lost", utterance.id, incarnation.index)
                self._scheduler.release(utterance.id)
                self._scheduler.resubmit(utterance.id, expected)

    @contextmanager
    def _ticket(self, ticket: str, expected: float) -> Iterator[None]:
        """A ticket in the scheduler for the length of a block, however it ends."""
        self._scheduler.submit(ticket, expected)
        try:
            yield
        except asyncio.CancelledError:
            # Engines stop between tokens, not at once: until then the slot stays taken here, too.
            self._settle_later(ticket)
            raise
        except Exception:
            self._leave(ticket)
            raise
        else:
            self._leave(ticket)

    async def _slot(self, ticket: str) -> Incarnation:
        loop = asyncio.get_running_loop()
        assigned: asyncio.Future[Incarnation] = loop.create_future()
        self._waiting[ticket] = assigned
        started = loop.time()
        try:
            self._hand_out()
            incarnation = await assigned
        finally:
            del self._waiting[ticket]
        self._telemetry.waited(loop.time() - started)
        return incarnation

    def _hand_out(self) -> None:
        for assignment in self._scheduler.assign():
            assigned = self._waiting.get(assignment.ticket)
            if assigned is not None and not assigned.done():
                assigned.set_result(self._incarnations[assignment.worker])

    def _leave(self, ticket: str) -> None:
        self._scheduler.release(ticket)
        self._hand_out()

    def _settle_later(self, ticket: str) -> None:
        worker = self._scheduler.worker_of(ticket)
        if worker is None:
            self._leave(ticket)
            return
        incarnation = self._incarnations[worker]  # looked up now: it may be lost before the task runs

        async def settle() -> None:
            await self._settle(incarnation, ticket)
            self._leave(ticket)

        task = asyncio.create_task(settle())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, incarnation: Incarnation, ticket: str) -> None:
        """Wait until the worker has given up that utterance and has a free slot, or is lost."""
        while not incarnation.lost:
            try:
                state = await incarnation.connection.state()
            except WorkerLostError:
                return  # the fleet's next look decides what became of it
            if ticket not in state.in_flight and len(state.in_flight) < state.slots and state.ready:
                return
            await asyncio.sleep(SETTLE_SECONDS)

    # What the fleet tells.

    def worker_ready(self, incarnation: Incarnation) -> None:
        """Count on its slots."""
        self._incarnations[incarnation.name] = incarnation
        speed = incarnation.state.speed or self._card.speed
        self._scheduler.join(incarnation.name, slots=incarnation.state.slots, speed=speed)
        self._hand_out()

    def worker_seen(self, incarnation: Incarnation) -> None:
        """Learn its measured speed."""
        if incarnation.state.speed is not None:
            self._scheduler.update(incarnation.name, speed=incarnation.state.speed)

    def worker_lost(self, incarnation: Incarnation) -> None:
        """Forget its slots; the attempts that ran there see `lost` by themselves."""
        self._telemetry.workers_lost.inc()
        self._scheduler.leave(incarnation.name)
        self._incarnations.pop(incarnation.name, None)

    def fleet_down(self, reason: str) -> None:
        """Tell everyone in line."""
        for assigned in list(self._waiting.values()):
            if not assigned.done():
                assigned.set_exception(not_serving(reason))

    # What operators see.

    @property
    def depth(self) -> int:
        """Utterances in line."""
        return self._scheduler.depth

    def why_not_serving(self) -> str | None:
        """None where an utterance would be spoken now or soon by a ready worker; else the reason."""
        if self._incarnations:
            return None
        return self._fleet.down() or "the workers are starting"

    def workers(self) -> list[WorkerView]:
        """Every worker known, by number."""
        views = []
        for index, worker in sorted(self._fleet.workers.items()):
            incarnation = worker.incarnation
            if incarnation is None:
                views.append(WorkerView(index, WorkerPhase.GONE, worker.reason, None))
            else:
                views.append(WorkerView(index, self._phase(incarnation), incarnation.state.reason, incarnation.state))
        return views

    def _phase(self, incarnation: Incarnation) -> WorkerPhase:
        match incarnation.state.phase:
            case Phase.STARTING | Phase.WARMING:
                return WorkerPhase.STARTING
            case Phase.FAILED:
                return WorkerPhase.FAILED
            case Phase.READY:
                full = self._scheduler.running_on(incarnation.name) >= incarnation.state.slots
                return WorkerPhase.BUSY if full else WorkerPhase.READY


async def _listen(incarnation: Incarnation, utterance: Utterance) -> bytes:
    async with aclosing(incarnation.connection.synthesize(utterance)) as pieces:
        return b"".join([pcm async for pcm in pieces])


def not_serving(reason: str) -> NotServingError:
    """The answer while no worker can speak."""
    return NotServingError(f"no worker can speak now: {reason}", retry_after=5.0)


def _answer(refusal: UtteranceRefusedError) -> InvalidRequestError | SynthesisError:
    if refusal.error.code == "internal":
        return SynthesisError(refusal.error.message)
    return InvalidRequestError(refusal.error.message, code=refusal.error.code)
