"""Answers 503 in place of a balancer that does not start.

The listening sockets are supervisord's, so that connections wait while a balancer starts. Where each start fails, they
would wait for as long as their clients have patience.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from balancer.listening_sockets import BACKLOG

log = logging.getLogger(__name__)

CHECK_SECONDS = 0.2
"""Pause between two checks whether a balancer serves."""
READ_SECONDS = 1.0
"""Time that a client has to send its request, and then to read the answer."""
MAX_READ_BYTES = 65_536
RETRY_SECONDS = 5

_ERROR = {
    "message": "the server is starting, or fails to start: its log says why; try again",
    "type": "server_error",
    "param": None,
    "code": "not_started",
}
_BODY = json.dumps({"error": _ERROR}).encode()
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    + f"Retry-After: {RETRY_SECONDS}\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode()
    + _BODY
)


class StandIn:
    """Answers on `listeners`, once started, until `serving()` is true or the port is closed."""

    def __init__(self, listeners: Sequence[socket.socket], serving: Callable[[], bool]) -> None:
        self._listeners = listeners
        self._serving = serving
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to answer, in a thread, unless it does already."""
        if not self.running and self._open():
            log.error("no balancer serves: connections are answered with 503 until one does")
            self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="stand-in", daemon=True)
            self._thread.start()

    def _open(self) -> bool:
        """Whether the port is open: it is closed for good when the server stops."""
        return bool(self._listeners) and all(
            listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for listener in self._listeners
        )

    async def _serve(self) -> None:
        servers = [
            await asyncio.start_server(_answer, sock=listener.dup(), backlog=BACKLOG) for listener in self._listeners
        ]
        try:
            while self._open() and not self._serving():
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            for server in servers:
                server.close()
            # A connection that was accepted is answered: nobody else has it, and its client would wait for ever.
            while answers := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(answers)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):  # it has left, or is too slow
            async with asyncio.timeout(READ_SECONDS):
                await reader.read(MAX_READ_BYTES)
            writer.write(_ANSWER)
            writer.write_eof()
            async with asyncio.timeout(READ_SECONDS):  # a close at once might reset the connection, and lose the answer
                while await reader.read(MAX_READ_BYTES):
                    pass
    finally:
        writer.close()
