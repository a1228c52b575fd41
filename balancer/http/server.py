"""The HTTP server of a balancer process: how it starts to accept, and how it stops."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from types import FrameType

import anyio.lowlevel
import uvicorn

from balancer.http.connections import Connections
from balancer.listening_sockets import refuse
from balancer.runtime.lifecycle import Lifecycle

SWITCH_SECONDS = 0.0005
"""Time that another thread may keep the interpreter while the event loop wants it, a tenth of Python's default. One
request wants it a dozen times, and each time a thread that reads a batch or prepares a text may have it."""


COLLECTION_THRESHOLDS = (10_000, 10, 20)
"""Thresholds of Python's collection of cycles, of which requests leave none: it stops all threads, for a tenth of a
second where there are the objects of a large batch. Its defaults are 700, 10 and 10."""


class _CutOff(logging.Filter):
    """Leaves out the tracebacks of connections that were cut at the end of the grace period: one line says so."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class Server(uvicorn.Server):
    """Serves on `listeners` until SIGTERM, then finishes what is in flight within the grace period.

    With `stop_delay` (seconds) it goes on serving for so long after SIGTERM, while `/ready` says 503: a load balancer
    in front finds out before the port is closed. A second signal, or SIGINT, ends that. When a successor takes over, it
    accepts no more and asks clients to reconnect, until the successor has it stopped.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listeners: list[socket.socket],
        lifecycle: Lifecycle,
        connections: Connections,
        *,
        stop_delay: float,
    ) -> None:
        super().__init__(config)
        self._listeners = listeners
        self._lifecycle = lifecycle
        self._connections = connections
        self._stop_delay = stop_delay
        self._stop_at: float | None = None
        lifecycle.on_hand_over.append(self._accept_no_more)

    def serve_until_stopped(self) -> None:
        """Blocks until the server has stopped."""
        # uvicorn closes the sockets that it is given; the originals are needed to refuse connections.
        self.run(sockets=[listener.dup() for listener in self._listeners])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await anyio.lowlevel.checkpoint()  # loads now what the first stream would stop the event loop for
        # What has been loaded stays, so garbage collection leaves it out: it would take a tenth of a second each time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTION_THRESHOLDS)
        sys.setswitchinterval(SWITCH_SECONDS)
        await super().startup(sockets)
        self._lifecycle.accepting.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn on a signal."""
        delayed = self._stop_delay and sig == signal.SIGTERM and not self._lifecycle.handed_over
        if delayed and self._stop_at is None:
            self._captured_signals.append(sig)
            self._stop_at = time.monotonic() + self._stop_delay
            self._lifecycle.on_stopping()
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when it stops."""
        if not self._lifecycle.handed_over:
            # supervisord holds the sockets, too: without this, connections would be queued until all workers have
            # stopped, and never be answered.
            refuse(self._listeners)
        logging.getLogger("uvicorn.error").addFilter(_CutOff())
        await super().shutdown(sockets)

    async def _accept_no_more(self) -> None:
        self._connections.close_after_responses()
        for server in self.servers:
            server.close()
