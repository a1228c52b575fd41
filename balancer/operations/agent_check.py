"""Answers HAProxy's agent check: the weight of this host by its free slots, or `drain` while it drains.

HAProxy connects, reads one line and hears that the connection is closed. `ready` takes back an earlier `drain`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from balancer.dispatch.dispatcher import Dispatcher
from balancer.scheduling.host_weight import HostWeight

OBSERVE_SECONDS = 1.0
ANSWER_SECONDS = 5.0
"""In which a client is to have read the answer."""


class AgentCheck:
    """The answer of one host."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._weight = HostWeight()
        self._percent = 100

    async def serve(self, host: str, port: int) -> None:
        """Answers at this address until cancelled. Raises OSError."""
        # A successor answers at the same address while this process ends.
        server = await asyncio.start_server(self._answer, host, port, reuse_port=True)
        async with server:
            while True:
                self.observe()
                await asyncio.sleep(OBSERVE_SECONDS)

    def observe(self) -> None:
        """Looks at the slots as they are now; to be called at regular times."""
        dispatcher = self._dispatcher
        self._percent = self._weight.observe(
            free=dispatcher.free_slots, slots=dispatcher.slots, all_slots=dispatcher.max_slots
        )

    @property
    def line(self) -> str:
        """The answer now."""
        return "drain" if self._dispatcher.draining else f"ready {self._percent}%"

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(f"{self.line}\n".encode())
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        writer.transport.abort()
