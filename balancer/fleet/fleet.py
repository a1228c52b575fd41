"""The workers as seen from the balancer: found by their sockets, looked at in turn, told apart by their phase.

A worker is known by its number; each process that plays it is an incarnation. When one is lost, whoever runs an
utterance on it is told at once, and the next process on the same socket is a new incarnation.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import psutil

from balancer.fleet.worker_client import Connection, WorkerLostError
from worker.contract import Phase, WorkerState

log = logging.getLogger(__name__)

STARTING_PROBE_SECONDS = 0.1
"""Pause between looks at a worker that is not ready: its first listener should not wait for the next slow look."""


STARTING_PATIENCE = 6
"""A worker that starts may be silent so many times longer than one that works, before it counts as hung."""


class WorkerPhase(StrEnum):
    """A worker's life as the balancer sees it."""

    STARTING = "starting"  # its socket answers; the model loads
    WARMING = "warming"  # the model speaks its first words, to nobody
    READY = "ready"  # has a free slot
    BUSY = "busy"  # every slot holds an utterance
    DRAINING = "draining"  # finishes what it has; is given nothing more
    FAILED = "failed"  # its model cannot load, or crashed at every start
    GONE = "gone"  # nobody answers on its socket


@dataclass(eq=False)
class Incarnation:
    """One process playing a worker. `lost` tells that it no longer counts; its connection is closed then."""

    index: int
    state: WorkerState
    connection: Connection
    lost: bool = False
    retired: bool = False
    """Its end is wanted: it was asked to drain."""

    @property
    def name(self) -> str:
        """Number and process id: unique over restarts."""
        return f"{self.index}:{self.state.pid}"

    @property
    def alive(self) -> bool:
        """Whether it speaks, or will once its model is loaded."""
        return self.state.phase is not Phase.FAILED


@dataclass(frozen=True)
class Silence:
    """A process that holds its socket and does not answer."""

    state: WorkerState
    """The last that was heard of it."""
    since: float


@dataclass
class Worker:
    """One worker of this host, whatever process plays it at the moment."""

    index: int
    path: Path
    incarnation: Incarnation | None = None
    reason: str | None = None
    """Why the last incarnation was lost."""
    failures: int = 0
    """Looks in a row that brought no answer."""
    silent: Silence | None = None
    """The process that has stopped answering, if there is one."""
    look: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have the next look at once."""


class Listener(Protocol):
    """Who is told of changes: the dispatcher."""

    def worker_ready(self, incarnation: Incarnation) -> None:
        """It takes utterances from now on."""

    def worker_seen(self, incarnation: Incarnation) -> None:
        """A ready worker was looked at again."""

    def worker_draining(self, incarnation: Incarnation) -> None:
        """It finishes what it has and takes nothing more."""

    def worker_lost(self, incarnation: Incarnation) -> None:
        """It takes none any more, and what it ran is lost."""

    def fleet_down(self, reason: str) -> None:
        """No worker is left and none came back in time."""


class Fleet:
    """Finds and watches the workers whose sockets lie in `folder`; times in seconds."""

    def __init__(
        self,
        folder: Path,
        *,
        probe_seconds: float,
        probe_timeout: float,
        probe_failures: int,
        recovery_seconds: float,
        unresponsive_seconds: float,
    ) -> None:
        self._folder = folder
        self._probe_seconds = probe_seconds
        self._probe_timeout = probe_timeout
        self._probe_failures = probe_failures
        self._recovery_seconds = recovery_seconds
        self._unresponsive_seconds = unresponsive_seconds
        self._last_alive: float | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.workers: dict[int, Worker] = {}

    async def run(self, listener: Listener) -> None:
        """Watch until cancelled."""
        self._listener = listener
        try:
            async with asyncio.TaskGroup() as watches:
                while True:
                    for worker in self._discover():
                        watches.create_task(self._watch(worker))
                    if (reason := self.down()) is not None:
                        listener.fleet_down(reason)
                    await asyncio.sleep(min(self._probe_seconds, STARTING_PROBE_SECONDS))
        finally:
            for worker in self.workers.values():
                if worker.incarnation is not None:
                    await worker.incarnation.connection.close()

    def down(self) -> str | None:
        """Why nobody can speak, once the workers have had their time to come back; None while there is hope."""
        now = asyncio.get_running_loop().time()
        incarnations = [worker.incarnation for worker in self.workers.values() if worker.incarnation is not None]
        if self._last_alive is None or any(incarnation.alive for incarnation in incarnations):
            self._last_alive = now
            return None
        if now - self._last_alive < self._recovery_seconds:
            return None
        reasons = {incarnation.state.reason for incarnation in incarnations}
        if failed := "; ".join(sorted(reason for reason in reasons if reason)):
            return f"no worker can load its model: {failed}"
        if not self.workers:
            return f"no worker has opened its socket in {self._folder}"
        return f"no worker answers ({len(self.workers)} known); they are restarted as soon as they can be"

    def lose(self, incarnation: Incarnation, reason: str) -> None:
        """Stop counting on a process; if it answers again, it is ready again."""
        worker = self.workers[incarnation.index]
        if incarnation.lost:
            return
        if incarnation.retired:
            log.info("worker %d (pid %d) has ended as it was asked to", worker.index, incarnation.state.pid)
        else:
            log.warning("worker %d (pid %d) is lost: %s", worker.index, incarnation.state.pid, reason)
        incarnation.lost = True
        worker.reason = reason
        worker.incarnation = None
        worker.look.set()
        if incarnation.state.phase in (Phase.READY, Phase.DRAINING):
            self._listener.worker_lost(incarnation)
        # Whoever listens to it is told by the closed connection: it may hang without a word.
        closing = asyncio.create_task(incarnation.connection.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _discover(self) -> list[Worker]:
        found = []
        for path in self._folder.glob("worker-*.sock"):
            match = re.fullmatch(r"worker-(\d+)\.sock", path.name)
            if match is not None and int(match[1]) not in self.workers:
                worker = Worker(int(match[1]), path)
                self.workers[worker.index] = worker
                found.append(worker)
        return found

    async def _watch(self, worker: Worker) -> None:
        while True:
            worker.look.clear()
            await self._look(worker)
            incarnation = worker.incarnation
            ready = incarnation is not None and incarnation.state.ready
            try:
                async with asyncio.timeout(self._probe_seconds if ready else STARTING_PROBE_SECONDS):
                    await worker.look.wait()
            except TimeoutError:
                continue

    async def _look(self, worker: Worker) -> None:
        incarnation = worker.incarnation
        connection = (
            incarnation.connection
            if incarnation is not None
            else Connection(worker.path, state_timeout=self._probe_timeout)
        )
        try:
            state = await connection.state()
        except WorkerLostError as error:
            worker.failures += 1
            self._note_silence(worker, error)
            if incarnation is None:
                worker.reason = str(error)
            elif error.dead or worker.failures >= self._probe_failures:
                self.lose(incarnation, str(error))
        else:
            worker.failures = 0
            worker.silent = None
            # One that was lost while we looked has its connection closed: the next look starts afresh.
            if incarnation is None or not incarnation.lost:
                self._see(worker, state, connection)
        finally:
            if worker.incarnation is None or worker.incarnation.connection is not connection:
                await connection.close()

    def _note_silence(self, worker: Worker, error: WorkerLostError) -> None:
        """End a process that holds its socket without a word for too long: supervisord sees only that it lives."""
        now = asyncio.get_running_loop().time()
        if not error.silent:
            worker.silent = None
        elif worker.incarnation is not None and worker.silent is None:
            worker.silent = Silence(worker.incarnation.state, now)
        if worker.silent is not None and now - worker.silent.since >= self._patience(worker.silent.state):
            state, worker.silent = worker.silent.state, None
            log.error("worker %d (pid %d) hangs; it is killed", worker.index, state.pid)
            _kill(state)

    def _patience(self, state: WorkerState) -> float:
        """How long a process may be silent: libraries that load and compile may keep it from answering."""
        starting = state.phase in (Phase.STARTING, Phase.WARMING)
        return self._unresponsive_seconds * (STARTING_PATIENCE if starting else 1)

    def _see(self, worker: Worker, state: WorkerState, connection: Connection) -> None:
        before = worker.incarnation
        if before is None:
            worker.incarnation = before = Incarnation(worker.index, state, connection)
            log.info("worker %d (pid %d) is %s", worker.index, state.pid, state.phase)
            if state.ready:
                self._listener.worker_ready(before)
            return
        if before.state.pid != state.pid:
            # The old process ended and the new one answered between two looks.
            self.lose(before, "another process took its place")
            return
        phase = before.state.phase
        before.state = state
        if state.phase is not phase:
            log.info("worker %d (pid %d) is %s", worker.index, state.pid, state.phase)
        if state.ready and phase is not Phase.READY:
            self._listener.worker_ready(before)
        elif state.ready:
            self._listener.worker_seen(before)
        elif phase is Phase.READY:
            before.retired = state.phase is Phase.DRAINING
            self._listener.worker_draining(before)


def _kill(state: WorkerState) -> None:
    """End that process, unless it has ended and its number belongs to another by now."""
    try:
        if psutil.Process(state.pid).create_time() <= state.started_at:
            os.kill(state.pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
