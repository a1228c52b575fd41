"""Runs an attempt to its end: hedges it with a second worker if it is slow, and frees the slots of both.

A slot that was not freed by a complete answer is kept until the worker reports that it has given the utterance up:
engines stop between tokens, not at once. The next attempt elsewhere does not wait for that.

The slot of an attempt on which the engine failed is kept for as long as the attempt was expected to take: otherwise a
worker that fails at once would always be the least busy one, and get nearly every utterance. It is free at once if the
utterance turns out to be at fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from balancer.dispatch.attempt import Attempt, AttemptExpiredError, AttemptTimeouts
from balancer.dispatch.early_audio import AudioDivergedError
from balancer.fleet.fleet import Fleet
from balancer.fleet.view import RunningUtterance
from balancer.fleet.worker_client import SynthesisResult, UtteranceRefusedError, WorkerFullError, WorkerLostError
from balancer.metrics import Metrics
from balancer.scheduling.queued_utterance import AttemptId

POLL_INTERVAL_SECONDS = 0.02
"""Pause between two requests for the state of a worker that is giving up an utterance."""


class AttemptRunner:
    """Runs attempts that hold a slot.

    `acquire_hedge` returns a second attempt on another worker, or None; `release` frees the slot of an attempt;
    `record_failure` is given each attempt that failed for a reason that the worker may be at fault for, with its kind;
    `others_serve` tells whether another worker than that of the attempt takes utterances.
    """

    def __init__(
        self,
        fleet: Fleet,
        metrics: Metrics,
        timeouts: AttemptTimeouts,
        *,
        sample_rate: int,
        acquire_hedge: Callable[[Attempt], Attempt | None],
        release: Callable[[AttemptId], None],
        record_failure: Callable[[Attempt, str], None],
        others_serve: Callable[[Attempt], bool],
    ) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self._timeouts = timeouts
        self._sample_rate = sample_rate
        self._acquire_hedge = acquire_hedge
        self._release = release
        self._record_failure = record_failure
        self._others_serve = others_serve
        self._settling: set[asyncio.Task[None]] = set()
        self._held: dict[AttemptId, asyncio.TimerHandle] = {}
        self._running: dict[AttemptId, tuple[Attempt, float]] = {}

    def running(self) -> dict[str, list[RunningUtterance]]:
        """The utterances that workers speak now, by the worker's name, the oldest first."""
        if not self._running:
            return {}
        now = self._now()
        found: dict[str, list[RunningUtterance]] = {}
        for attempt, started in self._running.values():
            utterance = attempt.utterance
            running = RunningUtterance(
                utterance.voice,
                len(utterance.text),
                attempt.queued.terms.priority,
                seconds=now - started,
                expected_seconds=attempt.expected,
            )
            found.setdefault(attempt.process.name, []).append(running)
        return found

    async def await_result(self, attempt: Attempt) -> tuple[SynthesisResult, Attempt]:
        """The result of the attempt or of its hedge, with the one that it came from. Cancelling it cancels both.

        Raises the errors of Attempt.run. The slots are free afterwards, or will be once the workers have settled.
        """
        hedge_after = self._timeouts.hedge_after(attempt.expected)
        if hedge_after is None:
            return await self._run(attempt), attempt
        return await self._race(attempt, hedge_after)

    async def _race(self, attempt: Attempt, hedge_after: float) -> tuple[SynthesisResult, Attempt]:
        """The first result of the attempt and a hedge that starts after `hedge_after` seconds, if a worker is idle."""
        tasks = {asyncio.create_task(self._run(attempt)): attempt}
        try:
            await asyncio.wait(tasks, timeout=hedge_after)
            hedge = None if any(task.done() for task in tasks) else self._acquire_hedge(attempt)
            if hedge is not None:
                hedge.cancelled_as = "hedge"
                tasks[asyncio.create_task(self._run(hedge))] = hedge
            pending = set(tasks)
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is None or not pending:
                        attempt.cancelled_as = "hedge"  # in case the hedge has won
                        return task.result(), tasks[task]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, attempt: Attempt) -> SynthesisResult:
        outcome = "failed"
        started = self._now()
        result: SynthesisResult | None = None
        self._running[attempt.id] = attempt, started
        try:
            result = await attempt.run()
        except asyncio.CancelledError:
            outcome = "cancelled"
            self._settle_later(attempt, started, attempt.cancelled_as)
            raise
        except AttemptExpiredError:
            outcome = "expired"
            self._settle_later(attempt, started, "attempt_timeout")
            self._record_failure(attempt, "timeout")
            raise
        except AudioDivergedError:
            self._settle_later(attempt, started, "diverged")
            raise
        except WorkerFullError:
            outcome = "refused"
            self._settle_later(attempt, started, None)
            raise
        except WorkerLostError as error:
            outcome = "lost"
            self._metrics.record_wasted_seconds("worker_lost", self._now() - started)
            self._fleet.lose(attempt.process, str(error))
            self._release(attempt.id)
            if error.odd:
                self._record_failure(attempt, "contract")
            raise
        except UtteranceRefusedError as error:
            if error.worker_fault:
                self._record_failure(attempt, "engine")
                self._release_when_expected(attempt, started)
            else:
                self._release(attempt.id)
            raise
        else:
            outcome = "ok"
            self._release(attempt.id)
            return result
        finally:
            del self._running[attempt.id]
            audio_seconds = result.samples / self._sample_rate if result is not None else 0.0
            self._metrics.record_attempt(outcome, self._now() - started, audio_seconds)

    def _release_when_expected(self, attempt: Attempt, started: float) -> None:
        """Free the slot at the time at which the attempt was expected to end; at once without another worker."""
        remaining = attempt.expected - (self._now() - started)
        if remaining <= 0 or not self._others_serve(attempt):
            self._release(attempt.id)
            return
        self._held[attempt.id] = asyncio.get_running_loop().call_later(remaining, self._release_held, attempt.id)

    def release_failed(self, utterance_id: str) -> None:
        """Free the slots that are kept of an utterance that failed everywhere: its workers are not at fault."""
        for attempt_id in [attempt_id for attempt_id in self._held if attempt_id.utterance == utterance_id]:
            self._held[attempt_id].cancel()
            self._release_held(attempt_id)

    def _release_held(self, attempt_id: AttemptId) -> None:
        del self._held[attempt_id]
        self._release(attempt_id)

    def _settle_later(self, attempt: Attempt, started: float, wasted_reason: str | None) -> None:
        """Free the slot once the worker has settled, and count its time as wasted for that reason, if there is one."""
        if wasted_reason == "cancelled":
            self._metrics.record_cancellation("running")

        async def settle() -> None:
            await self._settled(attempt)
            if wasted_reason is not None:
                self._metrics.record_wasted_seconds(wasted_reason, self._now() - started)
            self._release(attempt.id)

        task = asyncio.create_task(settle())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settled(self, attempt: Attempt) -> None:
        """Wait until the worker has given up the attempt and has a free slot, or is lost."""
        process = attempt.process
        while not process.lost:
            try:
                state = await process.client.state()
            except WorkerLostError:
                pass  # the next probe of the fleet decides whether the worker is lost
            else:
                given_up = attempt.utterance_id not in state.in_flight and len(state.in_flight) < state.slots
                if given_up and state.ready:
                    return
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
