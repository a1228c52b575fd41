"""Starts `python -m worker` as a process of its own, and ends it again.

with start_worker(worker_options(run_dir)) as worker:
    assert worker.await_ready().engine == "hibari"
    async with worker.client() as client: ...
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from balancer.host import processes
from scripts.support.servers import read_state
from tests.support.harness import ROOT, TIMEOUT, await_worker, environment, listens, wait_until
from tests.support.shared_folder import with_kernels
from worker.contract import FrameDecoder, FrameKind, Phase, Utterance, WorkerState
from worker.options import EngineOptions, WorkerOptions

CPU = min(os.sched_getaffinity(0))
SENTENCE = "Wonderful people quickly consider several alternative possibilities regarding international organisation. "


@dataclass(frozen=True)
class Worker:
    """A running worker and the path of its socket."""

    process: subprocess.Popen[bytes]
    path: Path

    def listens(self) -> bool:
        """Whether it accepts connections at its socket."""
        return listens(self.path)

    def state(self) -> WorkerState:
        """Its present state."""
        return read_state(self.path, timeout=TIMEOUT)

    def client(self) -> httpx.AsyncClient:
        """A client of its socket."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        return httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=TIMEOUT)

    def await_phase(self, phase: Phase) -> WorkerState:
        """Wait until it is in a phase, and return its state then."""
        state = self.state()

        def reached() -> bool:
            nonlocal state
            state = self.state()
            return state.phase is phase

        wait_until(reached)
        return state

    def await_ready(self) -> WorkerState:
        """Wait until it is ready, and return its state then."""
        return self.await_phase(Phase.READY)


def worker_options(
    run_dir: Path,
    engine: str = "hibari",
    *,
    index: int = 0,
    layout: tuple[tuple[int, ...], ...] = ((CPU,),),
    voices_dir: Path = ROOT / "voices",
    **engine_options: Any,
) -> WorkerOptions:
    """The options of a worker with the repository's voices, on one CPU, unless others are given."""
    cache_dir = run_dir / "cache"
    if engine != "hibari":
        with_kernels(cache_dir)
    return WorkerOptions(
        EngineOptions(engine, cache_dir, **engine_options),
        layout=layout,
        run_dir=run_dir,
        voices_dir=voices_dir,
        index=index,
        log_level="warning",
    )


@contextmanager
def start_worker(options: WorkerOptions, **variables: str) -> Iterator[Worker]:
    """`python -m worker`, which listens when the block begins and is killed when it ends."""
    with running(options.command(), options.socket, **variables) as worker:
        yield worker


@contextmanager
def running(command: Sequence[str], path: Path, **variables: str) -> Iterator[Worker]:
    """Any command that serves a worker at `path`: it listens when the block begins and is killed when it ends."""
    with processes.running(command, cwd=ROOT, env=environment() | variables) as process:
        worker = Worker(process, path)
        await_worker(process, path)
        yield worker


def utterance(text: str = "Hello there.", id: str = "u", **fields: object) -> Utterance:  # noqa: A002 - the field's name
    """An utterance for the default voice."""
    return Utterance.model_validate({"id": id, "text": text, "voice": "default", "seed": 7} | fields)


async def synthesize(client: httpx.AsyncClient, request: Utterance) -> list[tuple[FrameKind, bytes]]:
    """Every frame of an utterance."""
    answer = await client.post("/synthesize", content=request.model_dump_json())
    return FrameDecoder().feed(answer.raise_for_status().content)
