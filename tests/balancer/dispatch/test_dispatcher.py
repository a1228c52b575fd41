"""The dispatcher and the fleet, in this process, with stub workers that are real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from balancer.dispatch.dispatcher import Dispatcher, Patience, Terms
from balancer.dispatch.retry_policy import LEAST_RESERVE
from balancer.errors import (
    DeadlineUnreachableError,
    InvalidRequestError,
    NotServingError,
    PoisonedError,
    QueueFullError,
    SynthesisError,
)
from balancer.fleet.fleet import Fleet, WorkerPhase
from balancer.fleet.worker_client import SynthesisResult, WorkerClient
from balancer.metrics import Metrics
from balancer.scheduling.scheduler import Scheduler
from tests.support.harness import TIMEOUT, start_stub
from tests.support.unix_server import unix_server
from worker.cards import CARDS
from worker.contract import Phase, Utterance, WorkerState

AUDIO_BYTES = 9_600
NO_TERMS = Terms()
PATIENT = Patience()
IMPATIENT = Patience(seconds=0.3, factor=1.0)


@dataclass
class Front:
    """The parts of a balancer that are tested here."""

    fleet: Fleet
    scheduler: Scheduler
    metrics: Metrics
    dispatcher: Dispatcher

    async def dispatch(self, text: str, name: str = "u", terms: Terms = NO_TERMS) -> SynthesisResult:
        utterance = Utterance(id=name, text=text, voice="default", seed=1)
        async with asyncio.timeout(TIMEOUT):
            return await self.dispatcher.synthesize(utterance, terms)

    async def speak(self, text: str, name: str = "u") -> bytes:
        return (await self.dispatch(text, name)).pcm

    def phases(self) -> list[WorkerPhase]:
        return [view.phase for view in self.dispatcher.workers()]

    def count(self, counter: str) -> float:
        lines = self.metrics.exposition().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{counter} ", f"{counter}{{")))

    async def until_phases(self, *phases: WorkerPhase) -> None:
        async with asyncio.timeout(TIMEOUT):
            while self.phases() != list(phases):
                await asyncio.sleep(0.005)

    async def until_running(self, utterances: int) -> None:
        """Until so many utterances have really arrived at the workers."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                states = [view.state for view in self.dispatcher.workers()]
                if sum(len(state.in_flight) for state in states if state is not None) == utterances:
                    return
                await asyncio.sleep(0.005)

    async def until_idle(self) -> None:
        """Until nothing waits and every slot is free."""
        async with asyncio.timeout(TIMEOUT):
            while not self.dispatcher.idle:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def front(
    run_dir: Path,
    *,
    limit: int = 100,
    recovery_seconds: float = 20.0,
    unresponsive_seconds: float = 60.0,
    patience: Patience = PATIENT,
) -> AsyncIterator[Front]:
    fleet = Fleet(
        run_dir,
        probe_seconds=0.05,
        probe_timeout=1.0,
        probe_failures=2,
        recovery_seconds=recovery_seconds,
        unresponsive_seconds=unresponsive_seconds,
    )
    scheduler = Scheduler(limit)
    metrics = Metrics("hibari")
    dispatcher = Dispatcher(fleet, scheduler, metrics, CARDS["hibari"], patience)
    watching = asyncio.create_task(fleet.run(dispatcher))
    try:
        yield Front(fleet, scheduler, metrics, dispatcher)
        assert not watching.done(), watching.exception()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def stubs(run_dir: Path, count: int, processes: ExitStack) -> None:
    for index in range(count):
        processes.enter_context(start_stub(run_dir, index, audio_bytes=AUDIO_BYTES))


READY = WorkerPhase.READY


async def test_an_utterance_comes_back_whole(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            assert await chorus.speak("Hello.") == bytes(AUDIO_BYTES)
            assert chorus.scheduler.running == 0
            assert chorus.count("chorus_retries_total") == 0


async def test_it_runs_again_when_its_worker_dies(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 2, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            assert await chorus.speak("die once") == bytes(AUDIO_BYTES)
            assert chorus.count("chorus_retries_total") == 1
            assert chorus.count("chorus_workers_lost_total") == 1
            assert sorted(chorus.phases()) == [WorkerPhase.GONE, READY]
            assert chorus.scheduler.running == 0


async def test_it_waits_for_the_next_process_where_its_worker_was_the_only_one(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY)
            speaking = asyncio.create_task(chorus.speak("die once"))
            await chorus.until_phases(WorkerPhase.GONE)
            stubs(run_dir, 1, processes)
            assert await speaking == bytes(AUDIO_BYTES)


async def test_an_utterance_that_kills_two_workers_is_not_given_to_a_third(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 3, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY, READY, READY)
            with pytest.raises(PoisonedError, match="spoke utterance poison,"):
                await chorus.speak("die", "poison")
            assert sorted(chorus.phases()) == [WorkerPhase.GONE, WorkerPhase.GONE, READY]
            assert await chorus.speak("The third one lives.") == bytes(AUDIO_BYTES)


async def test_workers_that_were_dead_before_do_not_poison(run_dir: Path) -> None:
    with ExitStack() as processes:
        dead = [processes.enter_context(start_stub(run_dir, index, audio_bytes=AUDIO_BYTES)) for index in range(3)]
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY, READY, READY)
            for stub in dead:
                stub.process.kill()
                stub.process.wait()
            speaking = asyncio.create_task(chorus.speak("Hello."))
            await chorus.until_phases(WorkerPhase.GONE, WorkerPhase.GONE, WorkerPhase.GONE)
            stubs(run_dir, 1, processes)
            assert await speaking == bytes(AUDIO_BYTES)


async def test_a_truncated_body_is_never_taken_for_the_whole(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 2, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            with pytest.raises(PoisonedError):
                await chorus.speak("truncate")
            await chorus.until_phases(READY, READY)
            assert await chorus.speak("Both still serve.") == bytes(AUDIO_BYTES)


@pytest.mark.parametrize(
    ("text", "error", "code"),
    [("fail", SynthesisError, "synthesis_failed"), ("unspeakable", InvalidRequestError, "unspeakable")],
)
async def test_what_the_engine_cannot_speak_is_not_tried_elsewhere(
    run_dir: Path, text: str, error: type[InvalidRequestError | SynthesisError], code: str
) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 2, processes)
        async with front(run_dir) as chorus:
            with pytest.raises(error, match="the stub was told to") as caught:
                await chorus.speak(text)
            assert caught.value.code == code
            assert chorus.count("chorus_retries_total") == 0
            assert chorus.scheduler.running == 0


async def test_a_worker_that_is_full_after_all_costs_nothing(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            assert await chorus.speak("full") == bytes(AUDIO_BYTES)
            assert chorus.count("chorus_retries_total") == 0
            assert chorus.count("chorus_workers_lost_total") == 0


async def test_utterances_go_to_different_workers_and_the_rest_wait_in_line(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 2, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            speaking = [asyncio.create_task(chorus.speak("slow", f"u{number}")) for number in range(5)]
            await chorus.until_running(2)
            await chorus.until_phases(WorkerPhase.BUSY, WorkerPhase.BUSY)
            assert chorus.dispatcher.depth == 3
            (run_dir / "go").touch()
            assert await asyncio.gather(*speaking) == [bytes(AUDIO_BYTES)] * 5
            assert chorus.dispatcher.depth == 0


async def test_cancelling_stops_the_worker_and_frees_its_slot(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            speaking = asyncio.create_task(chorus.speak("hang"))
            await chorus.until_running(1)
            speaking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await speaking
            assert await chorus.speak("The slot is free.", "next") == bytes(AUDIO_BYTES)
            assert chorus.scheduler.running == 0


async def test_giving_up_on_a_worker_that_others_keep_full_leaves_no_slot_taken(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY)
            someone_else = WorkerClient(run_dir / "worker-0.sock", state_timeout=TIMEOUT)
            theirs = Utterance(id="theirs", text="hang", voice="default", seed=1)
            occupying = asyncio.create_task(someone_else.synthesize(theirs))
            await chorus.until_running(1)
            speaking = asyncio.create_task(chorus.speak("Refused for now."))
            async with asyncio.timeout(TIMEOUT):
                while not (run_dir / "refused").exists():
                    await asyncio.sleep(0.005)
            speaking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await speaking
            occupying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await occupying
            await someone_else.close()
            assert await chorus.speak("The slot is free.", "next") == bytes(AUDIO_BYTES)
            assert chorus.scheduler.running == 0


async def test_cancelling_in_line_leaves_the_line(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            first = asyncio.create_task(chorus.speak("slow", "first"))
            await chorus.until_running(1)
            second = asyncio.create_task(chorus.speak("Never spoken.", "second"))
            await asyncio.sleep(0)
            assert chorus.dispatcher.depth == 1
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert chorus.dispatcher.depth == 0
            (run_dir / "go").touch()
            assert await first == bytes(AUDIO_BYTES)


async def test_a_worker_that_stops_answering_is_lost_with_what_it_runs(run_dir: Path) -> None:
    with ExitStack() as processes:
        hanging = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        async with front(run_dir) as chorus:
            speaking = asyncio.create_task(chorus.speak("slow"))
            await chorus.until_running(1)
            os.kill(hanging.process.pid, signal.SIGSTOP)
            processes.enter_context(start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES))
            (run_dir / "go").touch()
            assert await speaking == bytes(AUDIO_BYTES)
            await chorus.until_phases(WorkerPhase.GONE, READY)
            os.kill(hanging.process.pid, signal.SIGCONT)
            await chorus.until_phases(READY, READY)
            assert chorus.count("chorus_retries_total") == 1


async def test_a_worker_that_hangs_for_long_is_killed(run_dir: Path) -> None:
    with ExitStack() as processes:
        hanging = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        async with front(run_dir, unresponsive_seconds=1.0) as chorus:
            await chorus.until_phases(READY)
            os.kill(hanging.process.pid, signal.SIGSTOP)
            async with asyncio.timeout(TIMEOUT):
                assert await asyncio.to_thread(hanging.process.wait) == -signal.SIGKILL


async def test_an_utterance_that_takes_too_long_is_tried_on_another_worker(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 2, processes)
        async with front(run_dir, patience=IMPATIENT) as chorus:
            await chorus.until_phases(READY, READY)
            spoken = await chorus.dispatch("hang once")
            assert (spoken.pcm, spoken.attempts) == (bytes(AUDIO_BYTES), 2)
            assert chorus.count("chorus_retries_total") == 1
            assert chorus.count("chorus_workers_lost_total") == 0
            await chorus.until_idle()
            assert chorus.count('chorus_wasted_seconds_total{reason="attempt_timeout"}') >= 0.3


async def test_an_utterance_that_two_workers_do_not_finish_is_poisoned(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 3, processes)
        async with front(run_dir, patience=IMPATIENT) as chorus:
            await chorus.until_phases(READY, READY, READY)
            with pytest.raises(PoisonedError, match="did not finish it in time"):
                await chorus.speak("hang")
            await chorus.until_idle()
            assert chorus.phases() == [READY, READY, READY]


async def test_an_idle_worker_helps_out_where_one_is_slow(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 2, processes)
        async with front(run_dir, patience=Patience(hedge_factor=1.0)) as chorus:
            await chorus.until_phases(READY, READY)
            spoken = await chorus.dispatch("hang once")
            assert (spoken.pcm, spoken.attempts) == (bytes(AUDIO_BYTES), 1)
            assert chorus.count("chorus_hedges_total") == 1
            assert chorus.count("chorus_retries_total") == 0
            await chorus.until_idle()
            assert chorus.count('chorus_wasted_seconds_total{reason="hedge"}') > 0


async def test_a_hedge_gives_way_to_those_who_wait(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir, patience=Patience(hedge_factor=1.0)) as chorus:
            await chorus.until_phases(READY)
            speaking = asyncio.create_task(chorus.speak("slow"))
            waiting = asyncio.create_task(chorus.speak("slow", "waiting"))
            await chorus.until_running(1)
            (run_dir / "go").touch()
            await asyncio.gather(speaking, waiting)
            assert chorus.count("chorus_hedges_total") == 0


async def test_the_slower_of_two_attempts_may_be_the_hedge(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 2, processes)
        async with front(run_dir, patience=Patience(hedge_factor=1.0)) as chorus:
            await chorus.until_phases(READY, READY)
            speaking = asyncio.create_task(chorus.speak("slow"))
            await chorus.until_running(2)
            (run_dir / "go").touch()
            assert await speaking == bytes(AUDIO_BYTES)
            await chorus.until_idle()
            assert chorus.count("chorus_hedges_total") == 1


@asynccontextmanager
async def mortal(path: Path, index: int) -> AsyncIterator[None]:
    """A worker that hangs up on every utterance, and comes back at once as another process."""
    lives = count(10**7)  # beyond all real process ids
    pid = next(lives)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pid
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST /synthesize"):
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                pid = next(lives)
                return
            state = WorkerState(
                index=index,
                pid=pid,
                phase=Phase.READY,
                engine="hibari",
                model="mortal",
                sample_rate=24_000,
                cores=(0,),
                threads=1,
                slots=1,
                in_flight=(),
                done=0,
                progress=0,
                speed=None,
                voices_prepared=(),
                resident_bytes=1,
                cpu_seconds=0.0,
                started_at=0.0,
            ).model_dump_json()
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(state)}\r\n\r\n{state}".encode())

    async with unix_server(path, serve):
        yield


async def test_where_every_worker_dies_of_everything_retries_end(run_dir: Path) -> None:
    """More utterances than the budget has retries; each would otherwise bring down two workers."""
    utterances = 2 * LEAST_RESERVE
    async with AsyncExitStack() as running:
        for index in range(4):
            await running.enter_async_context(mortal(run_dir / f"worker-{index}.sock", index))
        chorus = await running.enter_async_context(front(run_dir))
        speaking = [chorus.speak("Hello.", f"u{number}") for number in range(utterances)]
        answers = await asyncio.gather(*speaking, return_exceptions=True)
        assert {type(answer) for answer in answers} == {PoisonedError, NotServingError}
        assert chorus.count("chorus_retries_total") < utterances


async def test_a_deadline_that_the_work_in_line_breaks_is_refused_at_once(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY)
            now = asyncio.get_running_loop().time()
            speaking = asyncio.create_task(chorus.speak("slow"))
            long = asyncio.create_task(chorus.speak("A long text. " * 1000, "long"))
            await chorus.until_running(1)
            with pytest.raises(DeadlineUnreachableError, match="wait before this text") as caught:
                await chorus.dispatch("Hello.", "late", Terms(deadline=now + 5))
            assert caught.value.retry_after is not None
            (run_dir / "go").touch()
            await asyncio.gather(speaking, long)
            await chorus.dispatch("Hello.", "early", Terms(deadline=asyncio.get_running_loop().time() + TIMEOUT))


async def test_a_worker_that_drains_finishes_what_it_has_and_gets_no_more(run_dir: Path) -> None:
    with ExitStack() as processes:
        leaving = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY)
            speaking = asyncio.create_task(chorus.speak("slow"))
            await chorus.until_running(1)
            await chorus.dispatcher.retire(0)
            assert chorus.phases() == [WorkerPhase.DRAINING]
            waiting = asyncio.create_task(chorus.speak("Hello.", "waiting"))
            (run_dir / "go").touch()
            assert await speaking == bytes(AUDIO_BYTES)
            async with asyncio.timeout(TIMEOUT):
                assert await asyncio.to_thread(leaving.process.wait) == 0
            stubs(run_dir, 1, processes)
            assert await waiting == bytes(AUDIO_BYTES)
            assert chorus.count("chorus_workers_lost_total") == 0
            assert chorus.count("chorus_retries_total") == 0


async def test_compute_for_a_client_that_left_is_counted_as_wasted(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir) as chorus:
            await chorus.until_phases(READY)
            speaking = asyncio.create_task(chorus.speak("slow"))
            await chorus.until_running(1)
            queued = asyncio.create_task(chorus.speak("Hello.", "queued"))
            await asyncio.sleep(0)
            for task in (queued, speaking):
                task.cancel()
            await asyncio.gather(queued, speaking, return_exceptions=True)
            await chorus.until_idle()
            assert chorus.count('chorus_wasted_seconds_total{reason="cancelled"}') > 0
            assert chorus.count('chorus_cancellations_total{stage="queued"}') == 1
            assert chorus.count('chorus_cancellations_total{stage="running"}') == 1


async def test_the_line_is_bounded(run_dir: Path) -> None:
    with ExitStack() as processes:
        stubs(run_dir, 1, processes)
        async with front(run_dir, limit=2) as chorus:
            await chorus.until_phases(READY)
            speaking = [asyncio.create_task(chorus.speak("slow", f"u{number}")) for number in range(3)]
            await chorus.until_running(1)
            with pytest.raises(QueueFullError, match="2 utterances wait already"):
                await chorus.speak("One too many.", "more")
            (run_dir / "go").touch()
            await asyncio.gather(*speaking)


async def test_without_workers_the_line_is_told_so_in_time(run_dir: Path) -> None:
    async with front(run_dir, recovery_seconds=0.2) as chorus:
        with pytest.raises(NotServingError, match="no worker has opened its socket"):
            await chorus.speak("Hello?")
        assert chorus.dispatcher.depth == 0
        with pytest.raises(NotServingError):
            await chorus.speak("At once, this time.")


async def test_a_model_that_cannot_load_is_told_with_its_reason(run_dir: Path) -> None:
    with start_stub(run_dir, 0, phase=Phase.FAILED):
        async with front(run_dir, recovery_seconds=0.2) as chorus:
            await chorus.until_phases(WorkerPhase.FAILED)
            with pytest.raises(NotServingError, match="there are no weights; run: make weights"):
                await chorus.speak("Hello?")
            assert chorus.phases() == [WorkerPhase.FAILED]
            assert chorus.dispatcher.why_not_serving() == (
                "no worker can load its model: there are no weights; run: make weights"
            )


async def test_those_who_wait_are_served_once_a_worker_is_ready(run_dir: Path) -> None:
    async with front(run_dir) as chorus:
        speaking = asyncio.create_task(chorus.speak("Hello?"))
        await asyncio.sleep(0)
        with start_stub(run_dir, 0, phase=Phase.STARTING):
            await chorus.until_phases(WorkerPhase.STARTING)
            assert chorus.dispatcher.why_not_serving() == "the workers are starting"
        with start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES):
            assert await speaking == bytes(AUDIO_BYTES)
