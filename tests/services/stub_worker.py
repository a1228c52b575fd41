"""A worker that speaks the real contract and makes silence: a process of its own, for tests and benchmarks.

It misbehaves as its text tells it to, so that a test can bring about what a real worker does only by bad luck:

- `die`: end the process by SIGKILL after the first piece of audio
- `die once`: the same, unless another stub in the same folder has done it already
- `truncate`: close the body properly, but without the closing frame
- `hang`: never send anything
- `fail`: answer an ERROR frame, `internal`
- `unspeakable`: answer an ERROR frame, `unspeakable`
- `full`: refuse with 429 the first time (a file named `refused` tells of every refusal)
- `slow`: wait until a file named `go` appears beside the socket

`GET /heard` answers the newest utterance as it came.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from worker.contract import EndOfUtterance, FrameKind, Phase, Utterance, UtteranceError, WorkerState, encode_frame
from worker.server import listen

SAMPLE_RATE = 24_000


def create_app(index: int, folder: Path, audio_bytes: int, phase: Phase) -> Starlette:
    """A stub that answers every utterance with `audio_bytes` of silence."""
    in_flight: list[str] = []
    refused: set[str] = set()
    done = 0
    started_at = time.time()

    async def state(_: Request) -> Response:
        report = WorkerState(
            index=index,
            pid=os.getpid(),
            phase=phase,
            reason="there are no weights; run: make weights" if phase is Phase.FAILED else None,
            engine="hibari",
            model="stub",
            sample_rate=SAMPLE_RATE,
            cores=(0,),
            threads=1,
            slots=1,
            in_flight=tuple(in_flight),
            done=done,
            progress=done,
            speed=None,
            voices_prepared=(),
            resident_bytes=1,
            cpu_seconds=0.0,
            started_at=started_at,
        )
        return Response(report.model_dump_json(), media_type="application/json")

    async def frames(utterance: Utterance) -> AsyncIterator[bytes]:
        nonlocal done
        try:
            text = utterance.text
            if text == "hang":
                await asyncio.Event().wait()
            while text == "slow" and not (folder / "go").exists():
                await asyncio.sleep(0.005)
            if text in ("fail", "unspeakable"):
                code = "internal" if text == "fail" else text
                error = UtteranceError(code=code, message=f"the stub was told to {text}")
                yield encode_frame(FrameKind.ERROR, error.model_dump_json().encode())
                return
            yield encode_frame(FrameKind.PCM, bytes(audio_bytes))
            if text == "die" or (text == "die once" and _first(folder / "died")):
                await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "truncate":
                return
            done += 1
            end = EndOfUtterance(samples=audio_bytes // 2, compute_seconds=0.0)
            yield encode_frame(FrameKind.END, end.model_dump_json().encode())
        finally:
            in_flight.remove(utterance.id)

    async def synthesize(request: Request) -> Response:
        request.app.state.heard = await request.body()
        utterance = Utterance.model_validate_json(request.app.state.heard)
        if in_flight or (utterance.text == "full" and utterance.id not in refused):
            refused.add(utterance.id)
            (folder / "refused").touch()
            error = UtteranceError(code="full", message="all 1 slots are taken")
            return Response(error.model_dump_json(), 429)
        in_flight.append(utterance.id)
        return StreamingResponse(frames(utterance))

    routes = [Route("/state", state), Route("/synthesize", synthesize, methods=["POST"]), Route("/heard", _heard)]
    return Starlette(routes=routes)


async def _heard(request: Request) -> Response:
    return Response(request.app.state.heard, media_type="application/json")


def _first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    """Serve until killed, on a Unix socket in the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--audio-bytes", type=int, default=100_000)
    parser.add_argument("--phase", type=Phase, default=Phase.READY)
    arguments = parser.parse_args()
    app = create_app(arguments.index, arguments.folder, arguments.audio_bytes, arguments.phase)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_keep_alive=3600))
    asyncio.run(server.serve(sockets=[listen(arguments.folder / f"worker-{arguments.index}.sock")]))


if __name__ == "__main__":
    main()
