"""Takes utterances from the queue to the slots of workers, and retries them when a worker crashes.

It joins the pure scheduler and the live fleet: after every change of either, free slots are given to queued utterances.
Every attempt holds its own slot until the worker is seen to have given it up, so the next attempt at the same utterance
can start at once elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from balancer.dispatch.attempt import Attempt, AttemptExpiredError, AttemptTimeouts
from balancer.dispatch.attempt_runner import AttemptRunner
from balancer.dispatch.early_audio import AudioDivergedError, EarlyAudio
from balancer.dispatch.host_state import HostState
from balancer.dispatch.outlier_detection import OutlierDetector
from balancer.dispatch.retry_policy import RetryDecision, RetryPolicy
from balancer.dispatch.worker_ejector import WorkerEjector
from balancer.errors import ChorusError, InvalidRequestError, NotServingError, PoisonedError, SynthesisError
from balancer.fleet.fleet import Fleet, WorkerProcess
from balancer.fleet.worker_client import SynthesisResult, UtteranceRefusedError, WorkerFullError, WorkerLostError
from balancer.metrics import Metrics
from balancer.scheduling.cost_model import CostModel
from balancer.scheduling.queued_utterance import AttemptId, QueuedUtterance, Terms
from balancer.scheduling.scheduler import Scheduler
from worker.cards import EngineCard
from worker.contract import Utterance

log = logging.getLogger(__name__)


class Dispatcher:
    """Runs utterances on the fleet, whose listener it is."""

    def __init__(
        self,
        fleet: Fleet,
        scheduler: Scheduler,
        metrics: Metrics,
        card: EngineCard,
        timeouts: AttemptTimeouts,
        *,
        ejection_failures: int = 0,
    ) -> None:
        """`ejection_failures` is the number of failures from which a worker is restarted; 0: never."""
        self._fleet = fleet
        self._scheduler = scheduler
        self._metrics = metrics
        self._card = card
        self._timeouts = timeouts
        self._costs = CostModel(card)
        self._retry_policy = RetryPolicy()
        self._ejector = WorkerEjector(fleet, scheduler, metrics, OutlierDetector(ejection_failures))
        self._runner = AttemptRunner(
            fleet,
            metrics,
            timeouts,
            sample_rate=card.sample_rate,
            acquire_hedge=self._acquire_hedge,
            release=self._release,
            record_failure=self._ejector.record_failure,
            others_serve=lambda attempt: self._scheduler.open_besides({attempt.process.name}) > 0,
        )
        self._processes: dict[str, WorkerProcess] = {}
        """The workers that have joined the scheduler, by name."""
        self._waiting: dict[AttemptId, asyncio.Future[WorkerProcess]] = {}
        self.host_state = HostState(fleet, scheduler, self._costs, self._runner, self._processes, speed=card.speed)

    async def synthesize(self, utterance: Utterance, terms: Terms, early: EarlyAudio | None = None) -> SynthesisResult:
        """Synthesize an utterance. Cancelling the call cancels the utterance, queued or running.

        `early` hands on its audio while it is made: the result begins with all that was handed on.

        Raises QueueFullError, DeadlineTooShortError, DeadlineUnreachableError, NotServingError, PoisonedError,
        SynthesisError, InvalidRequestError.
        """
        if (reason := self._fleet.down()) is not None:
            raise not_serving(reason)
        queued = QueuedUtterance(AttemptId(utterance.id), self._costs.audio_seconds(len(utterance.text)), terms)
        self._scheduler.submit(queued, self._now())
        queue_seconds = 0.0
        strikes: list[str] = []
        failed_on: list[str] = []
        while True:
            started = self._now()
            attempt = await self._acquire_slot(queued, utterance, failed_on, early)
            queue_seconds += self._now() - started
            try:
                result, winner = await self._runner.await_result(attempt)
            except UtteranceRefusedError as error:
                strikes.append(attempt.process.name)
                self._check_failure_retry(attempt, error, strikes)
            except AudioDivergedError as error:
                raise SynthesisError("the rest of the audio does not fit what was sent of it already") from error
            except WorkerFullError:
                pass  # neither the utterance nor the worker is at fault
            except (WorkerLostError, AttemptExpiredError) as error:
                if error.accepted:  # a worker that had not begun the utterance did not crash because of it
                    strikes.append(attempt.process.name)
                self._check_retry(attempt, error, strikes)
            else:
                self._learn(winner, result)
                self._ejector.record_success(winner)
                return replace(
                    result,
                    queue_seconds=queue_seconds,
                    attempts=queued.attempt_id.number + 1,
                    worker=winner.process.index,
                )
            queued = replace(queued, attempt_id=queued.attempt_id.retry(), avoided=frozenset(failed_on))
            self._scheduler.resubmit(queued)

    def check_text(self, characters: int, deadline: float) -> None:
        """Check that a text of several utterances can be spoken by the deadline. Raises DeadlineTooShortError."""
        self._scheduler.check_text(self._costs.audio_seconds(characters), deadline, self._now())

    def improve(self, utterance_id: str, terms: Terms) -> None:
        """Another request waits for an utterance: while it is queued, the better place of the two counts."""
        for attempt_id in [attempt_id for attempt_id in self._waiting if attempt_id.utterance == utterance_id]:
            self._scheduler.improve(attempt_id, terms, self._now())

    def _check_retry(
        self, attempt: Attempt, error: WorkerLostError | AttemptExpiredError, strikes: Sequence[str]
    ) -> None:
        """Return if the utterance is to be retried. Raises PoisonedError, NotServingError."""
        utterance_id = attempt.utterance.id
        match self._retry_policy.decide(strikes, self._now(), slots=self._scheduler.max_slots):
            case RetryDecision.POISONED:
                raise PoisonedError(
                    f"{len(strikes)} workers crashed or timed out on utterance {utterance_id}; it is not retried"
                ) from error
            case RetryDecision.SUSPENDED:
                raise not_serving("workers crash faster than they complete requests; retries are suspended") from error
            case RetryDecision.RETRY:
                self._metrics.retries.inc()
                log.warning("retrying utterance %s: worker %d: %s", utterance_id, attempt.process.index, error)

    def _check_failure_retry(self, attempt: Attempt, error: UtteranceRefusedError, strikes: Sequence[str]) -> None:
        """Return if the utterance, on which an engine failed, is to be tried elsewhere. Raises the client's error."""
        retried = error.worker_fault and self._retry_policy.retries_failure(
            strikes, self._now(), slots=self._scheduler.max_slots
        )
        if not retried:
            if len(attempt.failed_on) > 1:
                self._runner.release_failed(attempt.utterance.id)
            raise _error_of(error) from error
        self._metrics.retries.inc()
        log.warning("retrying utterance %s: worker %d: %s", attempt.utterance.id, attempt.process.index, error)

    def _learn(self, attempt: Attempt, result: SynthesisResult) -> None:
        self._retry_policy.record_success()
        name = attempt.process.name
        if name not in self._processes:
            return  # the worker was lost meanwhile
        self._costs.learn(
            name,
            characters=len(attempt.utterance.text),
            audio_seconds=result.samples / self._card.sample_rate,
            compute_seconds=result.compute_seconds,
            used=min(attempt.used_at_start, self._scheduler.running + 1),  # its own slot is free again by now
        )
        self._scheduler.update(name, speed=self._costs.speed(name))

    # Slots.

    async def _acquire_slot(
        self, queued: QueuedUtterance, utterance: Utterance, failed_on: list[str], early: EarlyAudio | None
    ) -> Attempt:
        """Wait in the queue for a slot."""
        started = self._now()
        assigned: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting[queued.attempt_id] = assigned
        try:
            self._dispatch_ready()
            process = await assigned
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            self._metrics.record_queue_wait(self._now() - started, "cancelled" if cancelled else "failed")
            if cancelled:
                self._metrics.record_cancellation("queued")
            self._release(queued.attempt_id)
            raise
        finally:
            del self._waiting[queued.attempt_id]
        self._metrics.record_queue_wait(self._now() - started)
        return self._attempt(queued, utterance, process, failed_on, early)

    def _acquire_hedge(self, attempt: Attempt) -> Attempt | None:
        """A second attempt at the same utterance, if another worker is idle and no utterance is queued."""
        hedge = replace(attempt.queued, attempt_id=attempt.id.hedged())
        assignment = self._scheduler.hedge(hedge, self._now(), beside=attempt.id)
        if assignment is None:
            return None
        self._metrics.hedges.inc()
        process = self._processes[assignment.worker]
        return self._attempt(hedge, attempt.utterance, process, attempt.failed_on, attempt.early)

    def _attempt(
        self,
        queued: QueuedUtterance,
        utterance: Utterance,
        process: WorkerProcess,
        failed_on: list[str],
        early: EarlyAudio | None,
    ) -> Attempt:
        expected = queued.audio_seconds / self._costs.speed(process.name)
        limit = self._timeouts.limit(expected)
        return Attempt(
            queued,
            utterance,
            process,
            expected=expected,
            limit=limit,
            failed_on=failed_on,
            early=early,
            used_at_start=self._scheduler.running,
        )

    def _dispatch_ready(self) -> None:
        """Give free slots to queued utterances."""
        for assignment in self._scheduler.assign(self._now()):
            assigned = self._waiting.get(assignment.attempt_id)
            if assigned is not None and not assigned.done():
                assigned.set_result(self._processes[assignment.worker])

    def _release(self, attempt_id: AttemptId) -> None:
        self._scheduler.release(attempt_id)
        self._dispatch_ready()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # Notifications of the fleet.

    def worker_ready(self, process: WorkerProcess) -> None:
        """Use the worker's slots."""
        name = process.name
        self._ejector.watch(process)
        self._processes[name] = process
        self._scheduler.join(name, slots=process.state.slots, speed=self._costs.speed(name))
        self._dispatch_ready()

    def worker_draining(self, process: WorkerProcess) -> None:
        """Give the worker no new utterances."""
        self._scheduler.close(process.name)

    def worker_lost(self, process: WorkerProcess) -> None:
        """Remove the worker's slots. The attempts that ran on it fail by themselves."""
        if not process.retired:
            self._metrics.workers_lost.inc()
            self._retry_policy.record_crash(process.name, self._now())
        self._scheduler.leave(process.name)
        self._costs.forget(process.name)
        self._processes.pop(process.name, None)

    def fleet_down(self, reason: str) -> None:
        """Fail every queued utterance."""
        for assigned in list(self._waiting.values()):
            if not assigned.done():
                assigned.set_exception(not_serving(reason))

    # For operators.

    async def retire(self, index: int) -> None:
        """Have a worker drain and exit, so that it is restarted. Raises WorkerLostError."""
        process = self._fleet.workers[index].process
        if process is None:
            raise WorkerLostError("it is not running")
        process.retired = True
        self._scheduler.close(process.name)
        try:
            await process.client.drain()
        except WorkerLostError:
            process.retired = False
            self._scheduler.reopen(process.name)
            self._dispatch_ready()
            raise


def not_serving(reason: str) -> NotServingError:
    """The error while no worker is available."""
    return NotServingError(f"no worker is available: {reason}", retry_after=5.0)


def _error_of(refusal: UtteranceRefusedError) -> ChorusError:
    if refusal.worker_fault:
        return SynthesisError(refusal.error.message)
    return InvalidRequestError(refusal.error.message, code=refusal.error.code)
