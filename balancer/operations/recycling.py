"""Replaces workers, one at a time: those past their limits by itself, every one when the operator asks.

A worker is asked to drain only while another is ready, and the next only when its successor is. It ends by itself, and
supervisord starts it afresh, with whatever code is there by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.fleet.worker_client import WorkerLostError

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1

SERVING = (WorkerPhase.READY, WorkerPhase.BUSY)


@dataclass(frozen=True)
class Limits:
    """How long a worker is kept; None: for ever."""

    utterances: int | None = None
    own_bytes: int | None = None
    """Resident memory that it does not share."""

    def passed(self, view: WorkerView) -> str | None:
        """Why that worker is due, if it is."""
        state = view.state
        if state is None or view.phase not in SERVING:
            return None
        own = state.resident_bytes - state.shared_bytes
        if self.utterances is not None and state.done >= self.utterances:
            return f"it has spoken {state.done} utterances"
        if self.own_bytes is not None and own > self.own_bytes:
            return f"it takes {own / 2**20:.0f} MiB"
        return None


class Upkeep:
    """One replacement at a time, whoever asks for it."""

    def __init__(self, dispatcher: Dispatcher, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Replace workers that pass their limits, until cancelled."""
        while True:
            due = [(view.index, why) for view in self._dispatcher.workers() if (why := self._limits.passed(view))]
            for index, why in due:
                # With a single worker there is never another: then it is better old than away.
                if self._another(index):
                    log.info("worker %d is replaced: %s", index, why)
                    await self.replace(index)
            await asyncio.sleep(LOOK_SECONDS)

    async def replace(self, index: int) -> None:
        """Drain a worker, and wait until its successor speaks. A worker that does not run is only waited for."""
        async with self._one:
            await self._until(lambda: self._another(index) or len(self._dispatcher.workers()) == 1)
            before = self._view(index)
            if before is not None and before.state is not None and before.phase in SERVING:
                try:
                    await self._dispatcher.retire(index)
                except WorkerLostError as error:
                    log.warning("worker %d was lost before it could drain: %s", index, error)
            old = before.state.pid if before is not None and before.state is not None else None
            await self._until(lambda: self._succeeded(index, old))

    @staticmethod
    async def _until(condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(LOOK_SECONDS)

    def _succeeded(self, index: int, old: int | None) -> bool:
        view = self._view(index)
        return view is not None and view.phase in SERVING and view.state is not None and view.state.pid != old

    def _another(self, index: int) -> bool:
        return any(view.phase in SERVING for view in self._dispatcher.workers() if view.index != index)

    def _view(self, index: int) -> WorkerView | None:
        return next((view for view in self._dispatcher.workers() if view.index == index), None)
