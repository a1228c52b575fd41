from __future__ import annotations

import asyncio
from typing import cast

from balancer.dispatch.host_state import HostState
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.systemd_status import describe, report_to_systemd
from balancer.runtime.lifecycle import Lifecycle
from tests.support.harness import TIMEOUT


class FakeHostState:
    """The part of a host's state that the status is made of."""

    def __init__(self, *phases: WorkerPhase, reason: str | None = None) -> None:
        self.phases = list(phases)
        self.reason = reason
        self.draining = False

    def why_not_serving(self) -> str | None:
        return None if WorkerPhase.READY in self.phases else "the workers are starting"

    def workers(self) -> list[WorkerView]:
        return [WorkerView(index, phase, self.reason, None) for index, phase in enumerate(self.phases)]


def status(host_state: FakeHostState, workers: int | None) -> str:
    return describe(cast("HostState", host_state), workers)


def test_the_status_counts_the_workers_that_speak() -> None:
    assert status(FakeHostState(WorkerPhase.READY, WorkerPhase.BUSY), 2) == "2 of 2 workers ready"
    assert status(FakeHostState(WorkerPhase.READY), None) == "1 of 1 workers ready"


def test_the_status_says_what_is_wrong_in_one_line() -> None:
    host_state = FakeHostState(WorkerPhase.READY, WorkerPhase.FAILED, reason="no\nweights")
    host_state.draining = True
    assert status(host_state, 2) == "1 of 2 workers ready; draining; no weights"
    assert status(FakeHostState(), 2) == "0 of 2 workers ready; the workers are starting"


async def test_it_is_ready_with_the_first_worker_and_tells_changes_once_until_a_successor_takes_over() -> None:
    host_state, lifecycle = FakeHostState(WorkerPhase.WARMING, WorkerPhase.WARMING), Lifecycle()
    sent: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
    report = asyncio.create_task(
        report_to_systemd(
            cast("HostState", host_state), lifecycle, workers=2, send=lambda *lines: sent.put_nowait(lines)
        )
    )
    lifecycle.accepting.set()
    async with asyncio.timeout(TIMEOUT):
        assert await sent.get() == ("STATUS=0 of 2 workers ready; the workers are starting",)
        host_state.phases[1] = WorkerPhase.READY
        assert await sent.get() == ("READY=1", "STATUS=1 of 2 workers ready")
        host_state.phases[0] = WorkerPhase.READY
        assert await sent.get() == ("STATUS=2 of 2 workers ready",)
        lifecycle.handed_over = True
        await report
    assert sent.empty()
