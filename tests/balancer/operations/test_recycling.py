"""WorkerRecycler with a real dispatcher, a real fleet and stub workers that are real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.recycling import RecycleLimits, WorkerRecycler
from tests.support.dispatcher import AUDIO_BYTES, READY, RunningDispatcher, running_dispatcher
from tests.support.harness import TIMEOUT, Stub, start_stub
from tests.support.worker_state import worker_state
from worker.contract import Phase

MIB = 2**20


def view(*, phase: WorkerPhase = READY, done: int = 0, own: int = 0, shared: int = 0) -> WorkerView:
    state = worker_state(done=done, progress=done, resident_bytes=own + shared, shared_bytes=shared)
    return WorkerView(0, phase, None, state)


def test_without_limits_a_worker_is_not_replaced() -> None:
    assert RecycleLimits().reason_to_replace(view(done=10**9, own=10**12)) is None


def test_a_worker_is_replaced_after_so_many_utterances() -> None:
    limits = RecycleLimits(utterances=100)
    assert limits.reason_to_replace(view(done=99)) is None
    assert limits.reason_to_replace(view(done=100)) == "it has completed 100 utterances"


def test_a_worker_is_replaced_above_so_much_memory_of_its_own() -> None:
    limits = RecycleLimits(own_bytes=100 * MIB)
    assert limits.reason_to_replace(view(own=100 * MIB, shared=1000 * MIB)) is None
    assert limits.reason_to_replace(view(own=101 * MIB)) == "it uses 101 MiB of memory of its own"


def test_a_worker_that_does_not_serve_is_not_replaced() -> None:
    for phase in (WorkerPhase.DRAINING, WorkerPhase.WARMING, WorkerPhase.FAILED):
        assert RecycleLimits(utterances=1).reason_to_replace(view(phase=phase, done=5)) is None


@asynccontextmanager
async def recycling(run_dir: Path, limits: RecycleLimits) -> AsyncIterator[tuple[RunningDispatcher, WorkerRecycler]]:
    async with running_dispatcher(run_dir) as chorus:
        recycler = WorkerRecycler(chorus.dispatcher, limits)
        running = asyncio.create_task(recycler.run())
        yield chorus, recycler
        assert not running.done()
        running.cancel()


async def ended(stub: Stub) -> int:
    async with asyncio.timeout(TIMEOUT):
        return await asyncio.to_thread(stub.process.wait)


def has_ended(stub: Stub) -> bool:
    return stub.process.poll() is not None


async def test_a_worker_above_its_limit_is_replaced_only_while_another_is_ready(run_dir: Path) -> None:
    with ExitStack() as processes:
        first = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        async with recycling(run_dir, RecycleLimits(utterances=1)) as (chorus, _):
            await chorus.synthesize("Hello.")
            # The limit is exceeded and seen, but there is no other worker.
            async with asyncio.timeout(TIMEOUT):
                while (chorus.dispatcher.host_state.workers()[0].state or first.state()).done < 1:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert not has_ended(first)
            processes.enter_context(start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES))
            assert await ended(first) == 0
            processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
            await chorus.until_phases(READY, READY)


async def test_two_workers_above_their_limit_are_replaced_one_after_the_other(run_dir: Path) -> None:
    with ExitStack() as processes:
        old = [processes.enter_context(start_stub(run_dir, index, audio_bytes=AUDIO_BYTES)) for index in range(2)]
        async with recycling(run_dir, RecycleLimits(utterances=1)) as (chorus, _):
            await chorus.until_phases(READY, READY)
            await asyncio.gather(*(chorus.synthesize("Hello.", f"u{number}") for number in range(2)))
            async with asyncio.timeout(TIMEOUT):
                while not any(map(has_ended, old)):
                    await asyncio.sleep(0.01)
            (gone,) = [index for index, stub in enumerate(old) if has_ended(stub)]
            await asyncio.sleep(0.3)
            assert not has_ended(old[1 - gone]), "its fellow has no successor yet"
            processes.enter_context(start_stub(run_dir, gone, audio_bytes=AUDIO_BYTES))
            assert await ended(old[1 - gone]) == 0


async def test_replacing_waits_for_the_successor(run_dir: Path) -> None:
    with ExitStack() as processes:
        old = [processes.enter_context(start_stub(run_dir, index, audio_bytes=AUDIO_BYTES)) for index in range(2)]
        async with recycling(run_dir, RecycleLimits()) as (chorus, recycler):
            await chorus.until_phases(READY, READY)
            replacing = asyncio.create_task(recycler.replace(1))
            assert await ended(old[1]) == 0
            with start_stub(run_dir, 1, phase=Phase.STARTING):
                await chorus.until_phases(READY, WorkerPhase.STARTING)
                assert not replacing.done()
            processes.enter_context(start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES))
            async with asyncio.timeout(TIMEOUT):
                await replacing
            assert not has_ended(old[0])


async def test_a_worker_that_does_not_run_is_waited_for(run_dir: Path) -> None:
    with ExitStack() as processes:
        processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        dead = processes.enter_context(start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES))
        async with recycling(run_dir, RecycleLimits()) as (chorus, recycler):
            await chorus.until_phases(READY, READY)
            dead.process.kill()
            await chorus.until_phases(READY, WorkerPhase.GONE)
            replacing = asyncio.create_task(recycler.replace(1))
            processes.enter_context(start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES))
            async with asyncio.timeout(TIMEOUT):
                await replacing
