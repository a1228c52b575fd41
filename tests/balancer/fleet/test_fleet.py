"""The fleet, in this process, with workers whose answers are written by the test."""

from __future__ import annotations

import asyncio
from pathlib import Path

from balancer.fleet.fleet import Fleet, WorkerProcess
from balancer.settings.workers import ProbeSettings
from tests.support.harness import TIMEOUT, until
from tests.support.unix_server import unix_server
from tests.support.worker_state import worker_state


class Listener:
    """Takes the fleet's notices; keeps which processes are ready."""

    def __init__(self) -> None:
        self.ready: list[WorkerProcess] = []

    def worker_ready(self, process: WorkerProcess) -> None:
        self.ready.append(process)

    def worker_draining(self, process: WorkerProcess) -> None:
        raise AssertionError(process)

    def worker_lost(self, process: WorkerProcess) -> None:
        raise AssertionError(process)

    def fleet_down(self, reason: str) -> None:
        raise AssertionError(reason)


async def test_a_fleet_is_surveyed_once_every_worker_has_answered_or_failed(run_dir: Path) -> None:
    asked, answers = asyncio.Event(), asyncio.Event()
    state = worker_state().model_dump_json()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            asked.set()
            await answers.wait()
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(state)}\r\n\r\n{state}".encode())

    (run_dir / "worker-1.sock").touch()  # left by a process that was killed
    fleet, listener = Fleet(run_dir, ProbeSettings(probe_timeout=TIMEOUT)), Listener()
    assert not fleet.surveyed
    async with unix_server(run_dir / "worker-0.sock", serve):
        running = asyncio.create_task(fleet.run(listener))
        async with asyncio.timeout(TIMEOUT):
            await asked.wait()
            while not fleet.workers[1].probed:
                await asyncio.sleep(0.005)
        assert not fleet.surveyed, "a worker that is slow to answer may serve"
        answers.set()
        await until(lambda: fleet.surveyed)
        assert [process.name for process in listener.ready] == ["0:1"]
        running.cancel()
        await asyncio.wait([running])


async def test_a_fleet_without_workers_is_surveyed_at_once(run_dir: Path) -> None:
    fleet = Fleet(run_dir, ProbeSettings())
    running = asyncio.create_task(fleet.run(Listener()))
    await until(lambda: fleet.surveyed)
    running.cancel()
    await asyncio.wait([running])
