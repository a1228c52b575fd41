"""The worker processes of this host: found by their sockets, probed in turn, reported to the dispatcher.

A worker is a number; the process behind its socket changes with every restart. When a process is lost, the dispatcher
is notified at once, and the next process on the same socket is a new WorkerProcess.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import psutil

from balancer.fleet.running_clock import RunningClock
from balancer.fleet.worker_client import WorkerClient, WorkerLostError
from balancer.settings.workers import ProbeSettings
from worker.contract import Phase, WorkerState

log = logging.getLogger(__name__)

STARTING_PROBE_SECONDS = 0.1
"""Pause between probes of a worker that is not ready, so that the first request need not wait for a slow probe."""

MAX_CLOCK_STEP_SECONDS = 0.5
"""A pause of the balancer itself counts as so much at most, where a time limit of the workers is measured."""

STARTING_FACTOR = 6
"""A process that is starting may be unresponsive for this many times `unresponsive_seconds`: libraries that load and
compile may keep it from answering."""


EJECTION_SECONDS = 30.0
"""Time that an ejected process has to finish its other utterances and end, before it is killed."""

EJECTION_POLL_SECONDS = 0.1


class WorkerPhase(StrEnum):
    """The phase of a worker as the balancer sees it."""

    STARTING = "starting"  # the process answers; its model is loading
    WARMING = "warming"  # the model runs its warm-up synthesis
    READY = "ready"  # has a free slot
    BUSY = "busy"  # every slot is taken
    DRAINING = "draining"  # finishes its utterances and takes no new ones
    FAILED = "failed"  # the model cannot be loaded, or every start crashed
    GONE = "gone"  # no process answers on its socket


@dataclass(eq=False)
class WorkerProcess:
    """One process of a worker. `lost` is set when it no longer counts; its client is closed then."""

    index: int
    state: WorkerState
    client: WorkerClient
    lost: bool = False
    retired: bool = False
    """Whether it was asked to drain, so that its end is expected."""
    ejected: str | None = None
    """Why it is restarted although it works, if it is: it fails where others succeed."""

    @property
    def name(self) -> str:
        """`index:pid`, unique over restarts."""
        return f"{self.index}:{self.state.pid}"

    @property
    def alive(self) -> bool:
        """Whether it takes utterances, or will once its model is loaded."""
        return self.state.phase is not Phase.FAILED


@dataclass(frozen=True)
class Unresponsive:
    """A process that holds its socket and does not answer, or whose state violates the contract."""

    state: WorkerState | None
    """Its last valid answer; None if there was none."""
    since: float
    """By the fleet's clock, in seconds for which the balancer ran."""


@dataclass
class Worker:
    """One worker of this host, whichever process runs it at the moment."""

    index: int
    path: Path
    process: WorkerProcess | None = None
    reason: str | None = None
    """Why the last process was lost."""
    failures: int = 0
    """Probes in a row that failed."""
    unresponsive: Unresponsive | None = None
    """The process that has stopped answering, if there is one."""
    probed: bool = False
    """Whether its first probe has ended."""
    probe_now: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have the next probe at once."""


class FleetListener(Protocol):
    """Is notified of changes in the fleet: the dispatcher."""

    def worker_ready(self, process: WorkerProcess) -> None:
        """The process takes utterances from now on."""

    def worker_draining(self, process: WorkerProcess) -> None:
        """The process finishes its utterances and takes no new ones."""

    def worker_lost(self, process: WorkerProcess) -> None:
        """The process takes no more utterances, and those that ran on it are lost."""

    def fleet_down(self, reason: str) -> None:
        """No worker is left and none has come back in time."""


class Fleet:
    """Discovers and probes the workers whose sockets lie in `folder`."""

    def __init__(self, folder: Path, probes: ProbeSettings) -> None:
        self._folder = folder
        self._probes = probes
        self._clock = RunningClock(MAX_CLOCK_STEP_SECONDS)
        self._last_alive: float | None = None
        self._folder_error: str | None = None
        self._folder_read = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.workers: dict[int, Worker] = {}

    async def run(self, listener: FleetListener) -> None:
        """Discover and probe workers until cancelled."""
        self._listener = listener
        try:
            async with asyncio.TaskGroup() as watches:
                while True:
                    self._clock.tick()
                    for worker in self._discover():
                        watches.create_task(self._watch(worker))
                    if (reason := self.down()) is not None:
                        listener.fleet_down(reason)
                    await asyncio.sleep(min(self._probes.probe_seconds, STARTING_PROBE_SECONDS))
        finally:
            for worker in self.workers.values():
                if worker.process is not None:
                    await worker.process.client.close()

    @property
    def surveyed(self) -> bool:
        """Whether every worker whose socket lies in the folder has been probed, so that what is known is up to date."""
        return self._folder_read and all(worker.probed for worker in self.workers.values())

    def down(self) -> str | None:
        """Why no worker is available, once `recovery_seconds` have passed without one; None before that."""
        now = self._clock.now
        # The usual answer comes first: every request asks.
        if self._last_alive is None or any(
            worker.process is not None and worker.process.alive for worker in self.workers.values()
        ):
            self._last_alive = now
            return None
        if now - self._last_alive < self._probes.recovery_seconds:
            return None
        reasons = {worker.process.state.reason for worker in self.workers.values() if worker.process is not None}
        if failed := "; ".join(sorted(reason for reason in reasons if reason)):
            return f"no worker can load its model: {failed}"
        if not self.workers:
            return f"no worker has opened its socket in {self._folder}"
        return f"no worker answers ({len(self.workers)} known); they are being restarted"

    def lose(self, process: WorkerProcess, reason: str) -> None:
        """Stop using a process. If it answers again, it becomes a new WorkerProcess."""
        worker = self.workers[process.index]
        if process.lost:
            return
        if process.retired:
            log.info("worker %d (pid %d) has drained and ended", worker.index, process.state.pid)
        else:
            log.warning("worker %d (pid %d) is lost: %s", worker.index, process.state.pid, reason)
        process.lost = True
        worker.reason = reason
        worker.process = None
        worker.probe_now.set()
        if process.state.phase in (Phase.READY, Phase.DRAINING):
            self._listener.worker_lost(process)
        # Closing ends the attempts that wait for an answer of the process, which may never come.
        self._start(process.client.close())

    def eject(self, process: WorkerProcess, reason: str) -> None:
        """Restart a process that works but fails: it may finish what runs on it, unless it is lost already."""
        log.error("worker %d (pid %d) is ejected and restarted: %s", process.index, process.state.pid, reason)
        process.retired = True
        process.ejected = self.workers[process.index].reason = f"it is being restarted: {reason}"
        self._start(self._end(process))

    def process(self, name: str) -> WorkerProcess | None:
        """The process of that name, if it still counts."""
        worker = self.workers.get(int(name.partition(":")[0]))
        process = None if worker is None else worker.process
        return process if process is not None and process.name == name else None

    async def _end(self, process: WorkerProcess) -> None:
        """Have a process end by itself within EJECTION_SECONDS, or kill it; one that is lost is killed at once."""
        if not process.lost:
            with suppress(WorkerLostError):
                await process.client.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(EJECTION_SECONDS):
                    while not process.lost:
                        await asyncio.sleep(EJECTION_POLL_SECONDS)
                    return
        _kill(process.state.pid, process.state)

    def _start(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _discover(self) -> list[Worker]:
        """Add the workers whose sockets are new. A folder that cannot be read now is read again at the next turn."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError as error:  # out of descriptors, for example
            if self._folder_error != str(error):
                log.warning("workers that start now are not found: %s", error)
            self._folder_error = str(error)
            return []
        self._folder_error = None
        self._folder_read = True
        discovered = []
        for name in names:
            match = re.fullmatch(r"worker-(\d+)\.sock", name)
            if match is not None and int(match[1]) not in self.workers:
                worker = Worker(int(match[1]), self._folder / name)
                self.workers[worker.index] = worker
                discovered.append(worker)
        return discovered

    async def _watch(self, worker: Worker) -> None:
        while True:
            worker.probe_now.clear()
            await self._probe(worker)
            worker.probed = True
            process = worker.process
            ready = process is not None and process.state.ready
            try:
                async with asyncio.timeout(self._probes.probe_seconds if ready else STARTING_PROBE_SECONDS):
                    await worker.probe_now.wait()
            except TimeoutError:
                continue

    async def _probe(self, worker: Worker) -> None:
        process = worker.process
        client = (
            process.client
            if process is not None
            else WorkerClient(worker.path, state_timeout=self._probes.probe_timeout)
        )
        try:
            state = await client.state()
        except WorkerLostError as error:
            if error.unknown:
                return
            worker.failures += 1
            self._track_unresponsive(worker, error)
            if process is None:
                worker.reason = str(error)
            elif error.dead or worker.failures >= self._probes.probe_failures:
                self.lose(process, str(error))
        else:
            worker.failures = 0
            worker.unresponsive = None
            # The client of a process that was lost during this probe is closed: the next probe opens another.
            if process is None or not process.lost:
                self._update(worker, state, client)
        finally:
            if worker.process is None or worker.process.client is not client:
                await client.close()

    def _track_unresponsive(self, worker: Worker, error: WorkerLostError) -> None:
        """Kill a process that has been unresponsive or odd for too long: supervisord only sees that it is running."""
        now = self._clock.now
        if not (error.unresponsive or error.odd):
            worker.unresponsive = None
        elif worker.unresponsive is None:
            worker.unresponsive = Unresponsive(None if worker.process is None else worker.process.state, now)
        unresponsive = worker.unresponsive
        if unresponsive is not None and now - unresponsive.since >= self._unresponsive_limit(unresponsive.state):
            worker.unresponsive = None
            pid = _listening_pid(worker.path) if unresponsive.state is None else unresponsive.state.pid
            if pid is not None:
                log.error("worker %d (pid %d) is killed: %s", worker.index, pid, error)
                _kill(pid, unresponsive.state)

    def _unresponsive_limit(self, state: WorkerState | None) -> float:
        starting = state is None or state.phase in (Phase.STARTING, Phase.WARMING)
        return self._probes.unresponsive_seconds * (STARTING_FACTOR if starting else 1)

    def _update(self, worker: Worker, state: WorkerState, client: WorkerClient) -> None:
        """Take over the state that a probe returned, and notify the listener of a change of phase."""
        process = worker.process
        if process is None:
            worker.process = process = WorkerProcess(worker.index, state, client)
            log.info("worker %d (pid %d) is %s", worker.index, state.pid, state.phase)
            if state.ready:
                self._listener.worker_ready(process)
            return
        if process.state.pid != state.pid:
            # The old process ended and the new one answered between two probes.
            self.lose(process, "another process took its place")
            return
        previous = process.state.phase
        process.state = state
        if state.phase is not previous:
            log.info("worker %d (pid %d) is %s", worker.index, state.pid, state.phase)
        if state.ready and previous is not Phase.READY:
            self._listener.worker_ready(process)
        elif previous is Phase.READY and not state.ready:
            process.retired = state.phase is Phase.DRAINING
            self._listener.worker_draining(process)


def _kill(pid: int, state: WorkerState | None) -> None:
    """Kill the process, unless it has ended and another process has the pid of its state by now.

    A worker reports its pid itself: this process and its parent are never killed.
    """
    if pid in (os.getpid(), os.getppid(), 1):
        log.error("process %d is no worker, and is not killed", pid)
        return
    with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
        if state is None or psutil.Process(pid).create_time() <= state.started_at:
            os.kill(pid, signal.SIGKILL)


def _listening_pid(path: Path) -> int | None:
    """The process that listens on a Unix socket, as the kernel knows it; None if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
