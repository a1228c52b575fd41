"""The background tasks of the balancer, and what happens when one of them fails.

A task that can begin anew begins anew, after a pause that grows with each failure in a row: jobs, webhooks and the
control socket may fail, and speech goes on meanwhile. Where a task shares state with requests in flight and would leave
it torn, the process ends at once, without a grace period: nothing in flight could be finished, and the listening
sockets outlive the process, so that supervisord's next one is there within a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from prometheus_client import Counter

from worker.logs import flush

log = logging.getLogger(__name__)

MIN_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
STABLE_SECONDS = 120.0
"""A task that ran for so long before it failed is restarted as if it had never failed."""

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""


class OnFailure(Enum):
    """The consequence of a failure of a background task."""

    RESTART = "restart"
    """The task is run again after a pause: what it left undone is found again in a store, or is of no consequence."""
    END_PROCESS = "end process"
    """The process ends at once: the task's state is shared with requests, which would wait for it in vain."""


@dataclass(frozen=True)
class BackgroundTask:
    """A coroutine function that runs beside the requests, until it is cancelled or returns."""

    name: str
    run: Callable[[], Awaitable[None]]
    on_failure: OnFailure = OnFailure.RESTART


class Background:
    """Runs background tasks. `failures` counts their failures by task."""

    def __init__(self, failures: Callable[[str], Counter], *, min_pause: float = MIN_PAUSE_SECONDS) -> None:
        self._failures = failures
        self._min_pause = min_pause
        self._running: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def running(self, tasks: Iterable[BackgroundTask]) -> AsyncIterator[None]:
        """Runs the tasks until the end of the block, then cancels them, in their order."""
        self._running = {task.name: asyncio.create_task(self._supervise(task), name=task.name) for task in tasks}
        try:
            yield
        finally:
            for name in list(self._running):
                await self.stop(name)

    async def stop(self, name: str) -> None:
        """Cancels a task and waits for its end; it may have ended before."""
        task = self._running.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _supervise(self, task: BackgroundTask) -> None:
        loop = asyncio.get_running_loop()
        pause = self._min_pause
        while True:
            started = loop.time()
            try:
                await task.run()
            except Exception as error:
                self._failures(task.name).inc()
                if task.on_failure is OnFailure.END_PROCESS:
                    log.critical("the balancer ends at once: its task %s failed", task.name, exc_info=error)
                    end_process(EXIT_CODE)
                if loop.time() - started > STABLE_SECONDS:
                    pause = self._min_pause
                # One traceback each time: the pause keeps them few.
                log.exception("the background task %s failed; it runs again in %g s", task.name, pause)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(MAX_PAUSE_SECONDS, 2 * pause)


def end_process(code: int) -> NoReturn:
    """Ends the process with its log written, and without waiting for threads or connections."""
    flush()
    os._exit(code)
