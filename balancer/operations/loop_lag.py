"""Lag of the event loop: whatever blocks the loop delays every request and every probe of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def observe_loop_lag(record: Callable[[float], None], interval: float = 0.05) -> None:
    """Sleeps `interval` seconds repeatedly, and records by how many seconds it woke too late. Never returns."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        record(max(0.0, loop.time() - due))
