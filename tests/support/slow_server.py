"""A speech server with a set service time that fails on demand, in a thread of its own."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

RATE = 8_000


@dataclass(frozen=True)
class SlowServerOptions:
    """How the server answers."""

    slots: int = 1
    """Requests that it answers at a time; the others wait, as they do for busy workers."""
    service: float = 0.0
    """Service time in seconds."""
    stall_at: int = 0
    """Number of the request that stalls."""
    stall: float = 0.0
    """Service time of that request in seconds."""
    fault: str = ""
    """overloaded, page, empty, garbage or cut."""
    fault_every: int = 1
    """Every how many requests the fault occurs."""
    audio: float = 1.0
    """Length of the silence in seconds."""
    not_ready: bool = False
    """Whether `/ready` answers 503."""


class SlowServer:
    """Answers silence; `GET /seen?at_least=N` waits until N requests have been received, and answers their bodies."""

    def __init__(self, options: SlowServerOptions) -> None:
        self._options = options
        self._slots = asyncio.Semaphore(options.slots)
        self._seen: list[dict[str, Any]] = []
        self._arrived = asyncio.Condition()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/ready", self.ready),
                Route("/seen", self.seen),
                Route("/tts", self.tts, methods=["POST"]),
            ]
        )

    async def ready(self, _: Request) -> Response:
        if self._options.not_ready:
            return JSONResponse({"status": "no worker is up"}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def seen(self, request: Request) -> Response:
        minimum = int(request.query_params["at_least"])
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self._seen) >= minimum)
        return JSONResponse(self._seen)

    async def tts(self, request: Request) -> Response:
        body = await request.json()
        async with self._arrived:
            self._seen.append({"body": body, "authorization": request.headers.get("authorization")})
            number = len(self._seen)
            self._arrived.notify_all()
        async with self._slots:
            stalls = number == self._options.stall_at
            await asyncio.sleep(self._options.stall if stalls else self._options.service)
        if self._options.fault and number % self._options.fault_every == 0:
            return fault(self._options.fault)
        return Response(silence(self._options.audio), media_type="audio/wav")


def silence(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(bytes(2 * round(RATE * seconds)))
    return file.getvalue()


def fault(kind: str) -> Response:
    match kind:
        case "overloaded":
            error = {
                "message": "the queue is full",
                "type": "server_error",
                "param": None,
                "code": "overloaded",
            }
            return JSONResponse({"error": error}, status_code=503)
        case "page":
            return Response("<h1>Bad Gateway</h1>", status_code=502)
        case "empty":
            return Response(b"")
        case "garbage":
            return Response(b"this is not audio")
        case "cut":
            return StreamingResponse(truncated_audio())
    raise ValueError(kind)


async def truncated_audio() -> AsyncIterator[bytes]:
    yield silence(1)
    raise ConnectionAbortedError


@contextmanager
def slow_server(options: SlowServerOptions) -> Iterator[str]:
    """Run a server on a free port of the loopback address; gives its URL. The end of the block abandons its answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        config = uvicorn.Config(SlowServer(options).app(), log_level="critical", timeout_graceful_shutdown=0)
        server = uvicorn.Server(config)
        # A process would take half a second to import what this one has imported.
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
