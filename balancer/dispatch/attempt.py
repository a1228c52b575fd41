"""One attempt at an utterance: one worker, one slot, one limit of time. The dispatcher decides what comes after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from balancer.fleet.fleet import WorkerProcess
from balancer.fleet.worker_client import SynthesisResult
from balancer.scheduling.fair_queue import Order
from worker.contract import Utterance


class AttemptExpiredError(Exception):
    """The worker had the utterance for longer than its limit. It counts as accepted: the fault may be the text's."""

    accepted = True


@dataclass(eq=False)
class Attempt:
    """`order` holds the slot, `expected` and `limit` are seconds."""

    order: Order
    utterance: Utterance
    process: WorkerProcess
    expected: float
    limit: float
    cancelled_as: str = "cancelled"
    """What its work counts as, should it be cancelled."""

    @property
    def utterance_id(self) -> str:
        """What the worker knows it by: a worker that still has an earlier attempt must not take it for that one."""
        return self.order.ticket

    async def run(self) -> SynthesisResult:
        """The whole utterance. Cancelling it hangs up, which cancels the utterance in the worker.

        Raises AttemptExpiredError, WorkerLostError, WorkerFullError, UtteranceRefusedError.
        """
        utterance = self.utterance
        if utterance.id != self.utterance_id:
            utterance = utterance.model_copy(update={"id": self.utterance_id})
        try:
            async with asyncio.timeout(self.limit):
                return await self.process.client.synthesize(utterance)
        except TimeoutError as error:
            raise AttemptExpiredError(f"had not spoken it within {self.limit:.0f} s") from error
