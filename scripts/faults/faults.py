"""What is done to the server: one thing after another, as long as the clients ask.

The next comes a few seconds after the one before was noticed, whatever else goes on. So no utterance has two workers
shot from under it by chance: it would rightly be taken for one that kills its workers, and refused.
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
import psutil

from scripts.support.servers import Server

LOOK_SECONDS = 0.05
FILLED_SECONDS = 8.0
"""How long the run directory's disk stays full; workers die and start meanwhile."""


class Troubles:
    """Kills, stops and fills, until cancelled. `pause` is the least and the most seconds between two."""

    def __init__(self, server: Server, run_dir: Path, *, pause: tuple[float, float], fill: bool, seed: int) -> None:
        self.made: Counter[str] = Counter()
        self._server = server
        self._filler = run_dir / "filler"
        self._pause = pause
        self._fill = fill
        self._rng = random.Random(f"troubles {seed}")

    async def run(self) -> None:
        """Make trouble."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._worker_troubles())
            if self._fill:
                group.create_task(self._disk_troubles())

    async def _worker_troubles(self) -> None:
        # Every fourth is a stop: it takes the balancer seconds to be sure of that.
        kinds = [self._kill, self._kill, self._kill, self._stop]
        while True:
            for kind in kinds:
                await asyncio.sleep(self._rng.uniform(*self._pause))
                worker = await self._any_worker()
                await kind(worker)

    async def _any_worker(self) -> psutil.Process:
        while not (workers := self._server.processes_of("worker")):
            await asyncio.sleep(LOOK_SECONDS)
        return self._rng.choice(workers)

    async def _kill(self, worker: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
            self.made["workers killed (SIGKILL)"] += 1
        await self._until_noticed(worker.pid)

    async def _stop(self, worker: psutil.Process) -> None:
        """Stopped, it holds its socket and says nothing; nobody lets it go on."""
        with suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGSTOP)
            self.made["workers stopped (SIGSTOP)"] += 1
        await self._until_noticed(worker.pid)

    async def _until_noticed(self, pid: int) -> None:
        async with httpx.AsyncClient(base_url=self._server.url, timeout=None, trust_env=False) as http:
            while any(worker.get("pid") == pid for worker in (await http.get("/health")).json()["workers"]):
                await asyncio.sleep(LOOK_SECONDS)

    async def _disk_troubles(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(*self._pause) * 2)
            await asyncio.to_thread(self._fill_disk)
            self.made["times the run directory's disk was full"] += 1
            try:
                await asyncio.sleep(FILLED_SECONDS)
            finally:
                self._filler.unlink()

    def _fill_disk(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for block in (2**16, 1):
                with suppress(OSError):  # it is full
                    while True:
                        os.write(file.fileno(), bytes(block))
