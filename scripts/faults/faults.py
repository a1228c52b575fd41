"""Injects faults into a running server, one after another: workers are killed or stopped, the disk is filled.

A worker is hit a few seconds after the balancer has noticed the fault before and all requests of that time have ended.
So no utterance loses two workers by chance: the balancer would rightly take it for one that crashes workers, and fail
it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx

from scripts.faults.clients import Clients
from scripts.support.servers import SERVING_PHASES, Server

POLL_INTERVAL_SECONDS = 0.05
FULL_DISK_SECONDS = 8.0
"""How long the disk of the run directory stays full; workers end and start meanwhile."""


class FaultInjector:
    """Injects faults until it is cancelled, with a random pause of `pause`, (minimum, maximum) seconds, in between."""

    def __init__(
        self,
        server: Server,
        clients: Clients,
        run_dir: Path,
        *,
        pause: tuple[float, float],
        fill_disk: bool,
        seed: int,
    ) -> None:
        self.worker_faults = 0
        """Number of workers that were killed or stopped."""
        self.injected: Counter[str] = Counter()
        """Number of injected faults by kind."""
        self.ready_workers_hit = 0
        """Number of faults whose worker was ready: the balancer counts these workers as lost."""
        self._server = server
        self._clients = clients
        self._worker_hit = asyncio.Condition()
        self._filler = run_dir / "filler"
        self._pause = pause
        self._fill_disk = fill_disk
        self._rng = random.Random(f"faults {seed}")

    async def run(self) -> None:
        """Inject faults until cancelled."""
        async with (
            httpx.AsyncClient(base_url=self._server.url, timeout=None, trust_env=False) as self._http,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._inject_worker_faults())
            if self._fill_disk:
                group.create_task(self._inject_full_disks())

    async def wait_for_worker_faults(self, count: int) -> None:
        """Return once `count` workers were killed or stopped, and the requests of that time have ended."""
        async with self._worker_hit:
            await self._worker_hit.wait_for(lambda: self.worker_faults >= count)

    async def _inject_worker_faults(self) -> None:
        # One stop in four: the balancer takes seconds to be sure that a stopped worker is unresponsive.
        faults = [self._kill, self._kill, self._kill, self._stop]
        while True:
            for inject in faults:
                await asyncio.sleep(self._rng.uniform(*self._pause))
                await inject()
                await self._clients.wait_for_outstanding()
                async with self._worker_hit:
                    self._worker_hit.notify_all()

    async def _kill(self) -> None:
        """Kill any worker, whatever it is doing."""
        while not (workers := self._server.processes_of("worker")):
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        await self._signal(self._rng.choice(workers).pid, signal.SIGKILL, "workers killed (SIGKILL)")

    async def _stop(self) -> None:
        """Stop a worker that serves, for good: it keeps its socket and answers nothing.

        One that has not opened its socket yet would be nobody's to end, and one that starts is given a minute.
        """
        while not (serving := [pid for pid, phase in (await self._phases()).items() if phase in SERVING_PHASES]):
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        await self._signal(self._rng.choice(serving), signal.SIGSTOP, "workers stopped (SIGSTOP)")

    async def _signal(self, pid: int, signum: signal.Signals, kind: str) -> None:
        """Send a signal to a worker, and wait until the balancer no longer lists its process."""
        serving = (await self._phases()).get(pid) in SERVING_PHASES
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
            self.injected[kind] += 1
            self.worker_faults += 1
            self.ready_workers_hit += serving
        while pid in await self._phases():
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _phases(self) -> dict[int, str]:
        """The phase of each worker that the balancer lists, by its process."""
        workers = (await self._http.get("/health")).json()["workers"]
        return {worker["pid"]: worker["phase"] for worker in workers if worker.get("pid")}

    async def _inject_full_disks(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(*self._pause) * 2)
            await asyncio.to_thread(self._write_filler)
            self.injected["times the disk of the run directory was full"] += 1
            try:
                await asyncio.sleep(FULL_DISK_SECONDS)
            finally:
                self._filler.unlink()

    def _write_filler(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for block in (2**16, 1):
                with suppress(OSError):  # the disk is full
                    while True:
                        os.write(file.fileno(), bytes(block))
