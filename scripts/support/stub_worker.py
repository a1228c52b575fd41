"""A worker that follows the worker contract and answers silence: a program of its own, for tests and benchmarks.

Certain texts make it misbehave, so that a test can cause failures that are rare in a real worker:

- `die`: the process ends by SIGKILL after the first piece of audio
- `die once`: the same, unless another stub in the same folder has done so before
- `truncate`: the response body ends regularly, but without the END frame
- `hang`: the response body stays empty and open
- `hang once`: the same, unless another stub in the same folder has done so before
- `fail`: the response is an ERROR frame with the code `internal`
- `fail once`: the same, unless another stub in the same folder has done so before
- `fail on N`: the same, on worker N alone
- `unspeakable`: the response is an ERROR frame with the code `unspeakable`
- `full`: the first attempt is refused with 429; the file `refused` appears in the folder
- `slow`: the response begins when a file named `go` appears in the folder

An utterance with `first_piece_tokens` is answered with sound instead of silence, and its first piece comes in a frame
of its own. Behind it, certain texts make the worker misbehave:

- `wait within`: the rest comes when a file named `go` appears in the folder
- `differ in a hedge`: the same, and the audio of a hedge is another
- `die within`: the process ends by SIGKILL
- `die within once`, `differ`, `shorten`: the same, unless another stub in the same folder has done so before. Then the
  audio is the same, another one, or ends within the first piece

After `POST /drain` it finishes its utterances, refuses others and ends with code 0, as a real worker does.
`GET /last-utterance` answers the newest utterance as it was received.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
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

from worker.contract import (
    MAX_PCM_FRAME_BYTES,
    SAMPLE_BYTES,
    EndOfUtterance,
    FrameKind,
    Phase,
    Utterance,
    UtteranceError,
    WorkerState,
    encode_frame,
)
from worker.unix_listener import listen

SAMPLE_RATE = 24_000


class StubWorker:
    """Answers each utterance, after `speaking_seconds`, with `audio_bytes` of silence: 16-bit mono at SAMPLE_RATE.

    With `audio_of_text`, the audio tells text and seed: see that function.
    """

    def __init__(
        self,
        index: int,
        folder: Path,
        audio_bytes: int,
        phase: Phase,
        speaking_seconds: float = 0,
        *,
        audio_of_text: bool = False,
    ) -> None:
        self._audio_of_text = audio_of_text
        self._index = index
        self._folder = folder
        self._audio_bytes = audio_bytes
        self._phase = phase
        self._speaking_seconds = speaking_seconds
        self._in_flight: list[str] = []
        self._refused: set[str] = set()
        self._done = 0
        self._started_at = time.time()
        self._received = b"{}"
        self.app = Starlette(
            routes=[
                Route("/state", self._state),
                Route("/synthesize", self._synthesize, methods=["POST"]),
                Route("/drain", self._drain, methods=["POST"]),
                Route("/last-utterance", self._last_utterance),
            ]
        )

    async def _state(self, _: Request) -> Response:
        state = WorkerState(
            index=self._index,
            pid=os.getpid(),
            phase=self._phase,
            reason="there are no weights; run: make weights" if self._phase is Phase.FAILED else None,
            engine="hibari",
            model="stub",
            sample_rate=SAMPLE_RATE,
            cores=(0,),
            threads=1,
            slots=1,
            in_flight=tuple(self._in_flight),
            done=self._done,
            progress=self._done,
            speed=None,
            voices_prepared=(),
            resident_bytes=1,
            cpu_seconds=0.0,
            started_at=self._started_at,
        )
        return Response(state.model_dump_json(), media_type="application/json")

    async def _synthesize(self, request: Request) -> Response:
        self._received = await request.body()
        utterance = Utterance.model_validate_json(self._received)
        if self._phase is Phase.DRAINING:
            return Response(UtteranceError(code="not_ready", message="draining").model_dump_json(), 503)
        base_id = utterance.id.partition(".")[0]  # the same in all attempts
        if self._in_flight or (utterance.text == "full" and base_id not in self._refused):
            self._refused.add(base_id)
            (self._folder / "refused").touch()
            error = UtteranceError(code="full", message="all 1 slots are taken")
            return Response(error.model_dump_json(), 429)
        self._in_flight.append(utterance.id)
        return StreamingResponse(self._frames(utterance))

    async def _frames(self, utterance: Utterance) -> AsyncIterator[bytes]:
        text = utterance.text
        try:
            await self._wait(text)
            if self._speaking_seconds:
                await asyncio.sleep(self._speaking_seconds)
            if text == "unspeakable" or self._fails_on(text):
                code = "unspeakable" if text == "unspeakable" else "internal"
                error = UtteranceError(id=utterance.id, code=code, message=f"the stub was told to {text}")
                yield encode_frame(FrameKind.ERROR, error.model_dump_json().encode())
                return
            audio, first_bytes = self._audio(utterance)
            if first_bytes:
                yield encode_frame(FrameKind.PCM, audio[:first_bytes])
                await self._misbehave_within(text)
            for start in range(first_bytes, len(audio), MAX_PCM_FRAME_BYTES):
                yield encode_frame(FrameKind.PCM, audio[start : start + MAX_PCM_FRAME_BYTES])
            if text == "die" or (text == "die once" and _first(self._folder / "died")):
                await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "truncate":
                return
            self._done += 1
            end = EndOfUtterance(
                id=utterance.id,
                samples=len(audio) // SAMPLE_BYTES,
                compute_seconds=0.0,
                retakes={"retaken": 1, "flawed": 2}.get(text, 0),
                flaw="cut" if text == "flawed" else None,
            )
            yield encode_frame(FrameKind.END, end.model_dump_json().encode())
        finally:
            self._in_flight.remove(utterance.id)
            self._schedule_exit_if_idle()

    def _audio(self, utterance: Utterance) -> tuple[bytes, int]:
        """The audio, and the size of its first piece; 0: there is none."""
        if self._audio_of_text:
            return audio_of(utterance.text, utterance.seed, self._audio_bytes), 0
        if utterance.first_piece_tokens is None:
            return bytes(self._audio_bytes), 0
        again = (self._folder / "died").exists()
        hedge = utterance.id.endswith("+")
        differs = (utterance.text == "differ in a hedge" and hedge) or (utterance.text == "differ" and again)
        sound = b"\x00\x10" if differs else b"\x00\x20"
        first_bytes = min(self._audio_bytes, utterance.first_piece_tokens * SAMPLE_RATE // 25 * SAMPLE_BYTES)
        size = first_bytes // 2 if utterance.text == "shorten" and again else self._audio_bytes
        return (sound * (size // SAMPLE_BYTES + 1))[:size], min(size, first_bytes)

    async def _misbehave_within(self, text: str) -> None:
        if text in ("wait within", "differ in a hedge"):
            await self._go()
        once = text in ("die within once", "differ", "shorten")
        if text == "die within" or (once and _first(self._folder / "died")):
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGKILL)

    def _fails_on(self, text: str) -> bool:
        if text == "fail once":
            return _first(self._folder / "failed")
        return text in ("fail", f"fail on {self._index}")

    async def _wait(self, text: str) -> None:
        if text == "hang" or (text == "hang once" and _first(self._folder / "hung")):
            await asyncio.Event().wait()
        if text == "slow":
            await self._go()

    async def _go(self) -> None:
        while not (self._folder / "go").exists():
            await asyncio.sleep(0.005)

    async def _drain(self, _: Request) -> Response:
        self._phase = Phase.DRAINING
        self._schedule_exit_if_idle()
        return Response(status_code=202)

    def _schedule_exit_if_idle(self) -> None:
        """Exit after a moment, in which the present response is sent."""
        asyncio.get_running_loop().call_later(0.05, self._exit_if_idle)

    def _exit_if_idle(self) -> None:
        if self._phase is Phase.DRAINING and not self._in_flight:
            os._exit(0)

    async def _last_utterance(self, _: Request) -> Response:
        return Response(self._received, media_type="application/json")


def audio_of(text: str, seed: int, size: int) -> bytes:
    """So many bytes of audio that no other text and no other seed has."""
    digest = hashlib.sha256(f"{seed} {text}".encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def _first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    """Serve on a Unix socket in the folder, until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--audio-bytes", type=int, default=100_000)
    parser.add_argument("--phase", type=Phase, default=Phase.READY)
    parser.add_argument("--speaking-seconds", type=float, default=0.0)
    parser.add_argument("--audio-of-text", action="store_true")
    arguments = parser.parse_args()
    stub = StubWorker(
        arguments.index,
        arguments.folder,
        arguments.audio_bytes,
        arguments.phase,
        arguments.speaking_seconds,
        audio_of_text=arguments.audio_of_text,
    )
    server = uvicorn.Server(uvicorn.Config(stub.app, log_level="warning", timeout_keep_alive=3600))
    asyncio.run(server.serve(sockets=[listen(arguments.folder / f"worker-{arguments.index}.sock")]))


if __name__ == "__main__":
    main()
