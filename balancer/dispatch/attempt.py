"""One attempt at an utterance, on one worker, in one slot, within a time limit; and how the limit is computed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from balancer.dispatch.early_audio import AttemptAudio, EarlyAudio
from balancer.fleet.fleet import WorkerProcess
from balancer.fleet.running_clock import RunningTimeout
from balancer.fleet.worker_client import SynthesisResult
from balancer.scheduling.queued_utterance import AttemptId, QueuedUtterance
from worker.contract import Utterance

MIN_HEDGE_SECONDS = 0.05
"""Below it, estimates that are slightly too short would have every utterance synthesized twice."""

MIN_TIME_LIMIT = 0.001
"""Seconds that a worker is given for an utterance whose deadline is over: no further take fits into them."""


@dataclass(frozen=True)
class AttemptTimeouts:
    """Times after which an attempt has taken too long. Factors are multiples of its expected duration."""

    seconds: float = 30.0
    factor: float = 10.0
    hedge_factor: float | None = None

    def limit(self, expected: float) -> float:
        """Seconds after which an attempt is cancelled: the longer of `seconds` and `factor` times the expectation."""
        return max(self.seconds, self.factor * expected)

    def hedge_after(self, expected: float) -> float | None:
        """Seconds after which an idle worker is given the same utterance; None: never."""
        return None if self.hedge_factor is None else max(MIN_HEDGE_SECONDS, self.hedge_factor * expected)


class AttemptExpiredError(Exception):
    """The attempt exceeded its time limit. It counts as accepted, since the text may be the cause."""

    accepted = True


@dataclass(eq=False)
class Attempt:
    """An attempt that holds a slot of `process`."""

    queued: QueuedUtterance
    utterance: Utterance
    process: WorkerProcess
    expected: float
    """Expected duration in seconds."""
    limit: float
    """Time limit in seconds, in which the balancer's own delays do not count."""
    failed_on: list[str]
    """The workers that have failed on this utterance, in all of its attempts, which share the list."""
    used_at_start: int
    """Slots of all workers that were in use when it began, its own included."""
    early: EarlyAudio | None
    """Hands on the audio while it is made, for all of the utterance's attempts; None: nobody wants it early."""
    cancelled_as: str = "cancelled"
    """The reason in `chorus_wasted_seconds_total` if the attempt is cancelled."""

    @property
    def id(self) -> AttemptId:
        """Holds the slot."""
        return self.queued.attempt_id

    @property
    def utterance_id(self) -> str:
        """The utterance id that the worker is given: unique, so that an earlier attempt is not taken for this one."""
        return str(self.id)

    async def run(self) -> SynthesisResult:
        """Synthesize the utterance. Cancelling the call cancels the utterance in the worker.

        Raises AttemptExpiredError, WorkerLostError, WorkerFullError, UtteranceRefusedError, AudioDivergedError.
        """
        client, sample_rate = self.process.client, self.process.state.sample_rate
        utterance = self._own_utterance(asyncio.get_running_loop().time())
        try:
            async with RunningTimeout(self.limit):
                if self.early is None:
                    return await client.synthesize(utterance, sample_rate=sample_rate)
                audio = AttemptAudio(self.early)
                result = await client.synthesize(utterance, sample_rate=sample_rate, on_pcm=audio.add)
                audio.finish()
                return result
        except TimeoutError as error:
            raise AttemptExpiredError(f"not finished within {self.limit:.0f} s") from error

    def _own_utterance(self, now: float) -> Utterance:
        """The utterance as this attempt gives it to the worker."""
        terms = self.queued.terms
        remaining = self.limit if terms.deadline is None else terms.deadline - now
        own: dict[str, object] = {
            "id": self.utterance_id,
            "time_limit": max(MIN_TIME_LIMIT, min(self.limit, remaining)),
        }
        if terms.playout_deadline is not None:
            own["playout_deadline"] = max(0.0, terms.playout_deadline - now)
        return self.utterance.model_copy(update=own)
