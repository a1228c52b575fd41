"""Replaces workers one at a time: a worker that exceeds a limit, or any worker on the operator's command.

A worker is told to drain only while another one is ready, and the next worker only once the successor of the first is
ready. The drained process ends, and supervisord starts a new one with the code that is installed by then.
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

POLL_INTERVAL_SECONDS = 0.1

SERVING = (WorkerPhase.READY, WorkerPhase.BUSY)


@dataclass(frozen=True)
class RecycleLimits:
    """Limits above which a worker is replaced; None: no limit."""

    utterances: int | None = None
    """Utterances that the process has completed."""
    own_bytes: int | None = None
    """Resident memory of the process in bytes, shared memory not counted."""

    def reason_to_replace(self, view: WorkerView) -> str | None:
        """Returns the limit that the worker has exceeded, or None."""
        state = view.state
        if state is None or view.phase not in SERVING:
            return None
        own = state.resident_bytes - state.shared_bytes
        if self.utterances is not None and state.done >= self.utterances:
            return f"it has completed {state.done} utterances"
        if self.own_bytes is not None and own > self.own_bytes:
            return f"it uses {own / 2**20:.0f} MiB of memory of its own"
        return None


class WorkerRecycler:
    """Replaces workers, one at a time."""

    def __init__(self, dispatcher: Dispatcher, limits: RecycleLimits) -> None:
        self._dispatcher = dispatcher
        self._host_state = dispatcher.host_state
        self._limits = limits
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Replaces workers that exceed a limit, until cancelled."""
        while True:
            due = [
                (view.index, reason)
                for view in self._host_state.workers()
                if (reason := self._limits.reason_to_replace(view))
            ]
            for index, reason in due:
                # A single worker is never replaced: an old one serves better than none.
                if self._another_serves(index):
                    log.info("replacing worker %d: %s", index, reason)
                    await self.replace(index)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def replace(self, index: int) -> None:
        """Drains a worker and waits until its successor is ready. If the worker does not run, only waits for it."""
        async with self._lock:
            await self._until(lambda: self._another_serves(index) or len(self._host_state.workers()) == 1)
            before = self._view(index)
            if before is not None and before.state is not None and before.phase in SERVING:
                try:
                    await self._dispatcher.retire(index)
                except WorkerLostError as error:
                    log.warning("worker %d was lost before it could drain: %s", index, error)
            old_pid = before.state.pid if before is not None and before.state is not None else None
            await self._until(lambda: self._has_successor(index, old_pid))

    @staticmethod
    async def _until(condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    def _has_successor(self, index: int, old_pid: int | None) -> bool:
        view = self._view(index)
        return view is not None and view.phase in SERVING and view.state is not None and view.state.pid != old_pid

    def _another_serves(self, index: int) -> bool:
        return any(view.phase in SERVING for view in self._host_state.workers() if view.index != index)

    def _view(self, index: int) -> WorkerView | None:
        return next((view for view in self._host_state.workers() if view.index == index), None)
