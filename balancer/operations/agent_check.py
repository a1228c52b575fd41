"""Answers HAProxy's agent check: the weight of this host by its work, or `drain` while it drains.

HAProxy connects, reads one line and hears that the connection is closed. `ready` takes back an earlier `drain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from balancer.dispatch.host_state import HostState
from balancer.scheduling.host_weight import host_weight

ANSWER_SECONDS = 5.0
"""Time in which a client is to have read the answer."""


class AgentCheck:
    """The answer of one host. `open_requests` returns the number of its clients' requests under way."""

    def __init__(self, host_state: HostState, open_requests: Callable[[], int]) -> None:
        self._host_state = host_state
        self._open_requests = open_requests

    async def serve(self, host: str, port: int) -> None:
        """Answers at this address until cancelled. Raises OSError."""
        # A successor answers at the same address while this process ends.
        server = await asyncio.start_server(self._answer, host, port, reuse_port=True)
        async with server:
            await server.serve_forever()

    @property
    def line(self) -> str:
        """The answer now."""
        host_state = self._host_state
        if host_state.draining:
            return "drain"
        percent = host_weight(
            requests=self._open_requests(),
            utterances=host_state.running + host_state.depth,
            slots=host_state.slots,
            all_slots=host_state.max_slots,
        )
        return f"ready {percent}%"

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(f"{self.line}\n".encode())
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        writer.transport.abort()
