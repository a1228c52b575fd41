"""Time that passes only while this process runs.

After the process was suspended, or its event loop was held up, every timer is due at once, before anything that arrived
meanwhile is read. Such a delay is this process's own: it must not count against a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

STEPS = 8
"""A time limit is counted down in so many steps."""


class RunningClock:
    """Seconds for which the event loop ran. `tick` is called at least every `max_step` seconds."""

    def __init__(self, max_step: float) -> None:
        self.now = 0.0
        self._max_step = max_step
        self._ticked: float | None = None

    def tick(self) -> None:
        """Let the time since the last tick pass, or `max_step` if that is less."""
        now = asyncio.get_running_loop().time()
        if self._ticked is not None:
            self.now += min(now - self._ticked, self._max_step)
        self._ticked = now


@asynccontextmanager
async def running_timeout(seconds: float) -> AsyncIterator[None]:
    """Limits a block to `seconds` for which the event loop ran, as `asyncio.timeout` does. Raises TimeoutError.

    A step that ends late by more than its own length is not counted.
    """
    loop = asyncio.get_running_loop()
    step = seconds / STEPS
    steps = 0
    due = 0.0
    timer: asyncio.TimerHandle

    def end_step() -> None:
        nonlocal steps
        if loop.time() - due <= step:
            steps += 1
        if steps == STEPS:
            limit.reschedule(loop.time())
        else:
            begin_step()

    def begin_step() -> None:
        nonlocal due, timer
        due = loop.time() + step
        timer = loop.call_at(due, end_step)

    async with asyncio.timeout(None) as limit:
        begin_step()
        try:
            yield
        finally:
            timer.cancel()
