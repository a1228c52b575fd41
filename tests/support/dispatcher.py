"""A dispatcher and its fleet, running in the test's process. Stub workers are real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from balancer.dispatch.attempt import AttemptTimeouts
from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.fleet import Fleet, WorkerPhase
from balancer.fleet.worker_client import SynthesisResult
from balancer.metrics import Metrics
from balancer.scheduling.queued_utterance import Terms
from balancer.scheduling.scheduler import Scheduler
from balancer.settings.scheduling import SchedulingSettings
from balancer.settings.workers import ProbeSettings
from tests.support.harness import TIMEOUT, Stub, start_stub
from worker.cards import CARDS
from worker.contract import Utterance

AUDIO_BYTES = 9_600
"""Size of the audio that a stub answers with."""
READY = WorkerPhase.READY
DEFAULT_TERMS = Terms()
DEFAULT_TIMEOUTS = AttemptTimeouts()


@dataclass
class RunningDispatcher:
    """A dispatcher with the parts of the balancer that it joins."""

    fleet: Fleet
    scheduler: Scheduler
    metrics: Metrics
    dispatcher: Dispatcher

    async def dispatch(self, text: str, name: str = "u", terms: Terms = DEFAULT_TERMS) -> SynthesisResult:
        utterance = Utterance(id=name, text=text, voice="default", seed=1)
        async with asyncio.timeout(TIMEOUT):
            return await self.dispatcher.synthesize(utterance, terms)

    async def synthesize(self, text: str, name: str = "u") -> bytes:
        return (await self.dispatch(text, name)).pcm

    def phases(self) -> list[WorkerPhase]:
        return [view.phase for view in self.dispatcher.host_state.workers()]

    def count(self, counter: str) -> float:
        lines = self.metrics.exposition().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{counter} ", f"{counter}{{")))

    async def until_phases(self, *phases: WorkerPhase) -> None:
        async with asyncio.timeout(TIMEOUT):
            while self.phases() != list(phases):
                await asyncio.sleep(0.005)

    async def until_running(self, utterances: int) -> None:
        """Wait until the workers report that many utterances in flight."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                states = [view.state for view in self.dispatcher.host_state.workers()]
                if sum(len(state.in_flight) for state in states if state is not None) == utterances:
                    return
                await asyncio.sleep(0.005)

    async def until_idle(self) -> None:
        """Wait until no utterance is queued and every slot is free."""
        async with asyncio.timeout(TIMEOUT):
            while not self.dispatcher.host_state.idle:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running_dispatcher(
    run_dir: Path,
    *,
    limit: int = 100,
    probe_timeout: float = TIMEOUT,
    recovery_seconds: float = TIMEOUT,
    unresponsive_seconds: float = 60.0,
    timeouts: AttemptTimeouts = DEFAULT_TIMEOUTS,
    ejection_failures: int = 3,
) -> AsyncIterator[RunningDispatcher]:
    """Run a dispatcher on the workers whose sockets are in `run_dir`.

    A worker that does not answer is lost after two probes of `probe_timeout`: on a busy machine any may be slow.
    """
    fleet = Fleet(
        run_dir,
        ProbeSettings(
            probe_seconds=0.05,
            probe_timeout=probe_timeout,
            probe_failures=2,
            recovery_seconds=recovery_seconds,
            unresponsive_seconds=unresponsive_seconds,
        ),
    )
    scheduler = Scheduler(SchedulingSettings(queue_limit=limit, sjf_window=0.0))
    metrics = Metrics("hibari")
    dispatcher = Dispatcher(fleet, scheduler, metrics, CARDS["hibari"], timeouts, ejection_failures=ejection_failures)
    watching = asyncio.create_task(fleet.run(dispatcher))
    try:
        yield RunningDispatcher(fleet, scheduler, metrics, dispatcher)
        assert not watching.done(), watching.exception()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def start_stubs(run_dir: Path, count: int, processes: ExitStack) -> list[Stub]:
    """Start that many stub workers, which end with `processes`."""
    return [processes.enter_context(start_stub(run_dir, index, audio_bytes=AUDIO_BYTES)) for index in range(count)]
