from __future__ import annotations

import asyncio
from typing import cast

import pytest

from balancer.operations.handover import NotSupervisedError, ProgramState, Succession, Supervision
from balancer.runtime.lifecycle import Lifecycle
from tests.support.harness import TIMEOUT


class FakeSupervision:
    """supervisord, in which the successor goes through these states."""

    def __init__(self, *states: ProgramState) -> None:
        self._states = list(states)
        self.started = 0
        self.stopped = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def start_other(self) -> None:
        self.started += 1

    def state_of_other(self) -> ProgramState:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def stop_other(self) -> None:
        self._loop.call_soon_threadsafe(self.stopped.set)


RUNS, RUNS_AGAIN = ProgramState(7, ended=False), ProgramState(8, ended=False)
ENDED = ProgramState(0, ended=True)


@pytest.mark.parametrize("last", [ENDED, RUNS_AGAIN])
async def test_a_successor_that_ends_is_stopped_and_its_failure_told(last: ProgramState) -> None:
    supervision = FakeSupervision(RUNS, last)
    succession = Succession(cast("Supervision", supervision), Lifecycle())
    await succession.start()
    assert succession.failure is None
    async with asyncio.timeout(TIMEOUT):
        await supervision.stopped.wait()
        while succession.failure is None:
            await asyncio.sleep(0)
    assert succession.failure == "it ended: the log says why"


async def test_once_it_has_taken_over_nothing_is_watched() -> None:
    supervision, lifecycle = FakeSupervision(ENDED), Lifecycle()
    lifecycle.handed_over = True
    succession = Succession(cast("Supervision", supervision), lifecycle)
    await succession.start()
    await asyncio.sleep(0)
    assert (supervision.started, supervision.stopped.is_set(), succession.failure) == (1, False, None)


async def test_without_supervisord_there_is_no_successor() -> None:
    with pytest.raises(NotSupervisedError):
        await Succession(None, Lifecycle()).start()
