"""The state of a host whose workers come and go, with stub workers that are real processes."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from balancer.fleet.fleet import WorkerPhase
from balancer.scheduling.priority import Priority
from balancer.scheduling.queued_utterance import Terms
from tests.support.dispatcher import READY, running_dispatcher, start_stubs
from tests.support.harness import start_stub


async def test_a_host_without_workers_has_no_room(run_dir: Path) -> None:
    async with running_dispatcher(run_dir) as chorus:
        state = chorus.dispatcher.host_state
        assert (state.slots, state.free_slots, state.max_slots, state.capacity) == (0, 0, 0, 0.0)
        assert not state.room_for_batch
        assert state.idle
        assert state.characters_per_second > 0, "one worker is expected"
        assert state.workers() == []


async def test_slots_are_counted_and_their_most_is_kept(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            state = chorus.dispatcher.host_state
            with start_stub(run_dir, 1):
                await chorus.until_phases(READY, READY)
                assert (state.slots, state.free_slots, state.max_slots) == (2, 2, 2)
                capacity, speed = state.capacity, state.characters_per_second
            await chorus.until_phases(READY, WorkerPhase.GONE)
            assert (state.slots, state.max_slots) == (1, 2)
            assert 0 < state.capacity < capacity
            assert 0 < state.characters_per_second < speed
            assert state.why_not_serving() is None


async def test_a_stream_gets_its_share_of_the_slots(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            state = chorus.dispatcher.host_state
            await chorus.until_phases(READY, READY)
            assert state.mostly_idle
            assert [state.pace(utterances).slots for utterances in (0, 1, 2, 5)] == [1, 1, 2, 2]
            assert state.pace(2).speed == state.capacity / 2
            running = [asyncio.create_task(chorus.synthesize("slow", str(number))) for number in range(4)]
            await chorus.until_running(2)
            assert not state.mostly_idle
            assert (state.running, state.depth) == (2, 2)
            assert [state.pace(utterances).slots for utterances in (1, 2, 4)] == [1, 1, 2]
            (run_dir / "go").touch()
            await asyncio.gather(*running)


async def test_there_is_room_for_one_batch_utterance_in_the_queue(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            state = chorus.dispatcher.host_state
            await chorus.until_phases(READY)
            assert state.room_for_batch, "a slot is free"
            running = asyncio.create_task(chorus.synthesize("slow", "running"))
            await chorus.until_running(1)
            assert (state.running, state.free_slots, state.idle) == (1, 0, False)
            assert chorus.phases() == [WorkerPhase.BUSY]
            assert state.room_for_batch, "none is queued"
            batch = asyncio.create_task(chorus.dispatch("slow", "batch", Terms(priority=Priority.BATCH)))
            await asyncio.sleep(0)
            assert state.depth == state.depths[Priority.BATCH] == 1
            assert not state.room_for_batch
            (run_dir / "go").touch()
            await asyncio.gather(running, batch)
