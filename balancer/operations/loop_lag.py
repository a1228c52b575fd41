"""How late the event loop is: whatever holds it up makes every request and every look at a worker wait."""

from __future__ import annotations

import asyncio

from prometheus_client import Histogram


async def watch(histogram: Histogram, interval: float = 0.05) -> None:
    """Sleep for `interval` seconds, over and over, and observe by how many it wakes too late; for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        histogram.observe(max(0.0, loop.time() - due))
