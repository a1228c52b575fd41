"""Tells systemd when the server speaks, and how many workers do: `systemctl status` shows it.

The unit is ready with the first worker. `balancer.launch.watchdog` tells that supervisord is alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from balancer.dispatch.host_state import HostState
from balancer.fleet.fleet import WorkerPhase
from balancer.runtime.lifecycle import Lifecycle
from balancer.runtime.systemd import notify

POLL_INTERVAL_SECONDS = 0.25

SERVING = (WorkerPhase.READY, WorkerPhase.BUSY)


async def report_to_systemd(
    host_state: HostState, lifecycle: Lifecycle, *, workers: int | None, send: Callable[..., None] = notify
) -> None:
    """Sends each change of the status, with readiness once the server speaks, until a successor takes over."""
    await lifecycle.accepting.wait()
    ready, told = False, ""
    while not lifecycle.handed_over:
        status = describe(host_state, workers)
        newly_ready = not ready and host_state.why_not_serving() is None
        if newly_ready or status != told:
            send(*(["READY=1"] if newly_ready else []), f"STATUS={status}")
            ready, told = ready or newly_ready, status
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


def describe(host_state: HostState, workers: int | None) -> str:
    """The state of the server in one line. `workers` is the number of those that there are to be."""
    views = host_state.workers()
    ready = sum(view.phase in SERVING for view in views)
    status = f"{ready} of {workers or len(views)} workers ready"
    if host_state.draining:
        status += "; draining"
    reason = host_state.why_not_serving() or next((view.reason for view in views if view.reason), None)
    return status if reason is None else f"{status}; {' '.join(reason.split())}"
