"""Time that passes only while this process runs.

After the process was suspended, or its event loop was held up, every timer is due at once, before anything that arrived
meanwhile is read. Such a delay is this process's own: it must not count against a worker.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

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


class RunningTimeout:
    """Limits a block to `seconds` for which the event loop ran, as `asyncio.timeout` does. Raises TimeoutError.

    A step that ends late by more than its own length is not counted. It is a class, because every utterance is
    synthesized in one: a generator would take longer.
    """

    def __init__(self, seconds: float) -> None:
        self._step = seconds / STEPS
        self._steps = 0

    async def __aenter__(self) -> None:
        """Begin to count."""
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)
        await self._limit.__aenter__()
        self._begin_step()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the count. Raises TimeoutError."""
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _begin_step(self) -> None:
        self._due = self._loop.time() + self._step
        self._timer = self._loop.call_at(self._due, self._end_step)

    def _end_step(self) -> None:
        if self._loop.time() - self._due <= self._step:
            self._steps += 1
        if self._steps == STEPS:
            self._limit.reschedule(self._loop.time())
        else:
            self._begin_step()
