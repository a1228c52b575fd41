"""One utterance to one worker: waits for a slot, listens to the audio, and tries elsewhere if the worker dies.

Joins the pure scheduler to the live fleet: every change of either is followed by handing out what can be handed out.
Each attempt has a ticket of its own, which holds its slot until the worker is seen to have given it up; so whatever
becomes of one attempt, the next can start at once elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from balancer.dispatch.attempt import Attempt, AttemptExpiredError
from balancer.dispatch.crash_window import Deaths
from balancer.dispatch.retry_policy import RetryBudget
from balancer.errors import ChorusError, InvalidRequestError, NotServingError, PoisonedError, SynthesisError
from balancer.fleet.fleet import Fleet, WorkerPhase, WorkerProcess
from balancer.fleet.view import WorkerView
from balancer.fleet.worker_client import SynthesisResult, UtteranceRefusedError, WorkerFullError, WorkerLostError
from balancer.metrics import Metrics
from balancer.scheduling.cost_model import CostModel
from balancer.scheduling.fair_queue import Order
from balancer.scheduling.priority import Priority
from balancer.scheduling.scheduler import Scheduler
from worker.cards import EngineCard
from worker.contract import SAMPLE_BYTES, Phase, Utterance

log = logging.getLogger(__name__)

STRIKES_TO_POISON = 2
"""An utterance that so many workers died of, or did not finish in time, is not given to another, unless as many others
died lately without it."""

MOST_STRIKES = 4
"""After so many it is not, in any case."""

SETTLE_SECONDS = 0.02
"""Pause between looks at a worker that is giving up an utterance."""


@dataclass(frozen=True)
class Patience:
    """When an attempt has taken too long. Factors multiply the utterance's expected duration."""

    seconds: float = 30.0
    factor: float = 10.0
    hedge_factor: float | None = None

    def limit(self, expected: float) -> float:
        """Seconds after which an attempt is given up."""
        return max(self.seconds, self.factor * expected)

    def hedge(self, expected: float) -> float | None:
        """Seconds after which an idle worker tries the same; None: never."""
        return None if self.hedge_factor is None else max(LEAST_HEDGE_SECONDS, self.hedge_factor * expected)


LEAST_HEDGE_SECONDS = 0.05
"""Below it, an estimate that is a little short would have everything spoken twice."""


@dataclass(frozen=True)
class Terms:
    """How an utterance is to be treated; `deadline` is on the event loop's clock."""

    caller: str = ""
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None


class Dispatcher:
    """Runs utterances on the fleet. It is the fleet's listener."""

    def __init__(
        self,
        fleet: Fleet,
        scheduler: Scheduler,
        metrics: Metrics,
        card: EngineCard,
        patience: Patience = Patience(),
    ) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._metrics = metrics
        self._card = card
        self._costs = CostModel(card)
        self._patience = patience
        self._budget = RetryBudget()
        self._deaths = Deaths()
        self._most_slots = 0
        self._processes: dict[str, WorkerProcess] = {}
        self._waiting: dict[str, asyncio.Future[WorkerProcess]] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self.draining = False
        """Whether this host wants no new clients: `/ready` says so, while what comes is served."""

    async def synthesize(self, utterance: Utterance, terms: Terms = Terms()) -> SynthesisResult:
        """The whole utterance as PCM. Cancelling it cancels the utterance wherever it stands.

        Raises QueueFullError, DeadlineTooShortError, DeadlineUnreachableError, NotServingError, PoisonedError,
        SynthesisError, InvalidRequestError.
        """
        if (reason := self._fleet.down()) is not None:
            raise not_serving(reason)
        order = Order(
            ticket=utterance.id,
            audio_seconds=self._costs.audio_seconds(len(utterance.text)),
            caller=terms.caller,
            priority=terms.priority,
            deadline=terms.deadline,
        )
        self._scheduler.submit(order, self._now())
        waited, attempts = 0.0, 0
        victims: list[str] = []
        while True:
            started = self._now()
            attempt = await self._begin(order, utterance)
            waited += self._now() - started
            attempts += 1
            try:
                spoken, winner = await self._listen(attempt)
            except UtteranceRefusedError as error:
                raise _answer(error) from error
            except WorkerFullError:
                pass  # no fault of the utterance, nor of the worker
            except (WorkerLostError, AttemptExpiredError) as error:
                if error.accepted:  # one that never took the utterance did not die of it
                    victims.append(attempt.process.name)
                self._judge(attempt, error, victims)
            else:
                self._learn(winner, spoken)
                return replace(spoken, queue_seconds=waited, attempts=attempts, worker=winner.process.index)
            order = replace(order, ticket=f"{utterance.id}.{attempts}")
            self._scheduler.resubmit(order)

    # An attempt, from its place in line to its end.

    async def _begin(self, order: Order, utterance: Utterance) -> Attempt:
        """Wait in line for a slot."""
        started = self._now()
        assigned: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting[order.ticket] = assigned
        try:
            self._hand_out()
            process = await assigned
        except BaseException as error:
            left = isinstance(error, asyncio.CancelledError)
            self._metrics.record_queue_wait(self._now() - started, "cancelled" if left else "failed")
            if left:
                self._metrics.record_cancellation("queued")
            self._release(order.ticket)
            raise
        finally:
            del self._waiting[order.ticket]
        self._metrics.record_queue_wait(self._now() - started)
        return self._attempt(order, utterance, process)

    def _attempt(self, order: Order, utterance: Utterance, process: WorkerProcess) -> Attempt:
        expected = order.audio_seconds / self._costs.speed(process.name)
        return Attempt(order, utterance, process, expected=expected, limit=self._patience.limit(expected))

    async def _listen(self, attempt: Attempt) -> tuple[SynthesisResult, Attempt]:
        """What the attempt, or one hedged beside it, brings; the slots are free afterwards, or will be."""
        hedge_after = self._patience.hedge(attempt.expected)
        if hedge_after is None:
            return await self._run(attempt), attempt
        return await self._race(attempt, hedge_after)

    async def _race(self, attempt: Attempt, hedge_after: float) -> tuple[SynthesisResult, Attempt]:
        """The attempt against a second one, should an idle worker take it: the first to succeed wins."""
        tasks = {asyncio.create_task(self._run(attempt)): attempt}
        try:
            await asyncio.wait(tasks, timeout=hedge_after)
            hedge = None if any(task.done() for task in tasks) else self._hedge(attempt)
            if hedge is not None:
                hedge.cancelled_as = "hedge"
                tasks[asyncio.create_task(self._run(hedge))] = hedge
            pending = set(tasks)
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is None or not pending:
                        attempt.cancelled_as = "hedge"  # should it be the slower one
                        return task.result(), tasks[task]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _hedge(self, attempt: Attempt) -> Attempt | None:
        order = replace(attempt.order, ticket=f"{attempt.order.ticket}+")
        assignment = self._scheduler.hedge(order, self._now(), beside=attempt.order.ticket)
        if assignment is None:
            return None
        self._metrics.hedges.inc()
        return self._attempt(order, attempt.utterance, self._processes[assignment.worker])

    async def _run(self, attempt: Attempt) -> SynthesisResult:
        """Run an attempt on the worker that it has a slot of."""
        ticket = attempt.order.ticket
        outcome = "failed"
        started = self._now()
        spoken: SynthesisResult | None = None
        try:
            spoken = await attempt.run()
        except asyncio.CancelledError:
            outcome = "cancelled"
            self._settle_later(attempt, started, attempt.cancelled_as)
            raise
        except AttemptExpiredError:
            outcome = "expired"
            self._settle_later(attempt, started, "attempt_timeout")
            raise
        except WorkerFullError:
            outcome = "refused"
            self._settle_later(attempt, started, None)
            raise
        except WorkerLostError as error:
            outcome = "lost"
            self._metrics.record_wasted_seconds("worker_lost", self._now() - started)
            self._fleet.lose(attempt.process, str(error))
            self._release(ticket)
            raise
        except UtteranceRefusedError:
            self._release(ticket)
            raise
        else:
            outcome = "ok"
            self._release(ticket)
            return spoken
        finally:
            audio = self._seconds(spoken.pcm) if spoken is not None else 0.0
            self._metrics.record_attempt(outcome, self._now() - started, audio)

    def _judge(self, attempt: Attempt, error: WorkerLostError | AttemptExpiredError, victims: list[str]) -> None:
        """Let an utterance run again after its worker failed it, or raise why it does not."""
        utterance, strikes = attempt.utterance, len(victims)
        by_chance = self._deaths.others(set(victims), self._now()) >= strikes
        if strikes >= (MOST_STRIKES if by_chance else STRIKES_TO_POISON):
            raise PoisonedError(
                f"{strikes} workers died while they spoke utterance {utterance.id}, or did not finish it in time; "
                "it is not tried again"
            ) from error
        if not self._budget.spend(self._now(), slots=self._most_slots):
            raise not_serving("they die faster than they speak, so nothing is tried again") from error
        self._metrics.retries.inc()
        log.warning("utterance %s runs again: worker %d %s", utterance.id, attempt.process.index, error)

    def _learn(self, attempt: Attempt, spoken: SynthesisResult) -> None:
        self._budget.earn()
        name = attempt.process.name
        if name not in self._processes:
            return  # it has just gone
        self._costs.learn(
            name,
            characters=len(attempt.utterance.text),
            audio_seconds=self._seconds(spoken.pcm),
            compute_seconds=spoken.compute_seconds,
        )
        self._scheduler.update(name, speed=self._costs.speed(name))

    def _seconds(self, pcm: bytes) -> float:
        return len(pcm) / SAMPLE_BYTES / self._card.sample_rate

    # Slots.

    def _hand_out(self) -> None:
        for assignment in self._scheduler.assign(self._now()):
            assigned = self._waiting.get(assignment.ticket)
            if assigned is not None and not assigned.done():
                assigned.set_result(self._processes[assignment.worker])

    def _release(self, ticket: str) -> None:
        self._scheduler.release(ticket)
        self._hand_out()

    def _settle_later(self, attempt: Attempt, started: float, wasted_as: str | None) -> None:
        """Hold the slot until the worker has given the utterance up: engines stop between tokens, not at once."""
        if wasted_as == "cancelled":
            self._metrics.record_cancellation("running")

        async def settle() -> None:
            await self._settled(attempt)
            if wasted_as is not None:
                self._metrics.record_wasted_seconds(wasted_as, self._now() - started)
            self._release(attempt.order.ticket)

        task = asyncio.create_task(settle())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settled(self, attempt: Attempt) -> None:
        """Wait until the worker has given up that attempt and has a free slot, or is lost."""
        process = attempt.process
        while not process.lost:
            try:
                state = await process.client.state()
            except WorkerLostError:
                pass  # the fleet's next look decides what became of it
            else:
                given_up = attempt.utterance_id not in state.in_flight and len(state.in_flight) < state.slots
                if given_up and state.ready:
                    return
            await asyncio.sleep(SETTLE_SECONDS)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # What the fleet tells.

    def worker_ready(self, process: WorkerProcess) -> None:
        """Count on its slots."""
        name = process.name
        self._processes[name] = process
        self._scheduler.join(name, slots=process.state.slots, speed=self._costs.speed(name))
        self._most_slots = max(self._most_slots, self._scheduler.slots)
        self._hand_out()

    def worker_draining(self, process: WorkerProcess) -> None:
        """Give it nothing more."""
        self._scheduler.close(process.name)

    def worker_lost(self, process: WorkerProcess) -> None:
        """Forget its slots; the attempts that ran there see `lost` by themselves."""
        if not process.retired:
            self._metrics.workers_lost.inc()
            self._deaths.note(process.name, self._now())
        self._scheduler.leave(process.name)
        self._costs.forget(process.name)
        self._processes.pop(process.name, None)

    def fleet_down(self, reason: str) -> None:
        """Tell everyone in line."""
        for assigned in list(self._waiting.values()):
            if not assigned.done():
                assigned.set_exception(not_serving(reason))

    # What operators see and do.

    async def retire(self, index: int) -> None:
        """Have that worker finish what it has and end, to be started afresh. Raises WorkerLostError."""
        process = self._fleet.workers[index].process
        if process is None:
            raise WorkerLostError("it does not run")
        process.retired = True
        self._scheduler.close(process.name)
        try:
            await process.client.drain()
        except WorkerLostError:
            process.retired = False
            self._scheduler.reopen(process.name)
            self._hand_out()
            raise

    @property
    def depth(self) -> int:
        """Utterances in line."""
        return self._scheduler.depth

    @property
    def depths(self) -> Mapping[Priority, int]:
        """Utterances in line by priority."""
        return self._scheduler.depths

    @property
    def free_slots(self) -> int:
        """Slots that are free."""
        return self._scheduler.free_slots

    @property
    def slots(self) -> int:
        """Slots of all workers that take utterances."""
        return self._scheduler.slots

    @property
    def room_for_batch(self) -> bool:
        """Whether batch work would start at once, or none waits yet, so that it grows old enough for its turn."""
        if not self._scheduler.slots:
            return False
        depths = self._scheduler.depths
        return (self._scheduler.free_slots > 0 and not any(depths.values())) or not depths[Priority.BATCH]

    @property
    def characters_per_second(self) -> float:
        """What the workers speak together; where none is ready, what one would."""
        speeds = [self._costs.speed(name) * process.state.slots for name, process in self._processes.items()]
        return (sum(speeds) or self._card.speed) / self._costs.audio_seconds(1)

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._scheduler.depth and not self._scheduler.running

    def why_not_serving(self) -> str | None:
        """None where an utterance would be spoken now or soon by a ready worker; else the reason."""
        if self._scheduler.slots:
            return None
        return self._fleet.down() or "the workers are starting"

    def workers(self) -> list[WorkerView]:
        """Every worker known, by number."""
        views = []
        for index, worker in sorted(self._fleet.workers.items()):
            process = worker.process
            if process is None:
                views.append(WorkerView(index, WorkerPhase.GONE, worker.reason, None))
            else:
                views.append(WorkerView(index, self._phase(process), process.state.reason, process.state))
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


def not_serving(reason: str) -> NotServingError:
    """The answer while no worker can speak."""
    return NotServingError(f"no worker can speak now: {reason}", retry_after=5.0)


def _answer(refusal: UtteranceRefusedError) -> ChorusError:
    if refusal.error.code == "internal":
        return SynthesisError(refusal.error.message)
    return InvalidRequestError(refusal.error.message, code=refusal.error.code)
