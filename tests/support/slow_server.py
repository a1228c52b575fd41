"""A speech server with a set service time that fails on demand. It prints its port once it listens.

It answers silence to `--slots` requests at a time; the others wait, as they do for busy workers.
`GET /seen?at_least=N` waits until N requests have been received, and answers their bodies.
"""

import argparse
import asyncio
import io
import socket
import wave
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

RATE = 8_000


class SlowServer:
    def __init__(self, options: argparse.Namespace) -> None:
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


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1, help="concurrent requests")
    parser.add_argument("--service", type=float, default=0.0, help="service time in seconds")
    parser.add_argument("--stall-at", type=int, default=0, help="number of the request that stalls")
    parser.add_argument("--stall", type=float, default=0.0, help="service time of that request in seconds")
    parser.add_argument("--fault", default="", help="overloaded, page, empty, garbage or cut")
    parser.add_argument("--fault-every", type=int, default=1, help="every how many requests the fault occurs")
    parser.add_argument("--audio", type=float, default=1.0, help="length of the silence in seconds")
    parser.add_argument("--not-ready", default="", help="anything: /ready answers 503")
    return parser.parse_args()


def main() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        print(listener.getsockname()[1], flush=True)  # noqa: T201
        config = uvicorn.Config(SlowServer(parse()).app(), log_level="critical", timeout_graceful_shutdown=0)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
