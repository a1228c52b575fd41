"""`python -m scripts.attacks.fake_worker`: a worker that breaks the contract once the file `odd` is in its folder.

- `endless`: audio without end
- `endless-state`: a state without end
- `nan-state`: a state with numbers that JSON does not have
- `late`: a second answer to an utterance, on the same connection, before the answer to the next one
- `silent`: no answer to an utterance
- `garbage`: an answer that is no HTTP
- `failing`: every utterance fails, at once
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from scripts.attacks.wire import read_body
from worker.contract import EndOfUtterance, FrameKind, Phase, UtteranceError, WorkerState, encode_frame
from worker.unix_listener import listen

KINDS = ("endless", "endless-state", "nan-state", "late", "silent", "garbage", "failing")
MARK = "odd"
SAMPLES = 24_000
OWN, LATE = b"\0\0", b"\1\1"
"""Samples of an answer, and of a second one that nobody has asked for."""
LATE_SECONDS = 0.2
"""Pause after it, so that it is taken for a complete answer."""
FRAMES = 20
"""Frames that audio without end is written in at once, about 1 MB."""
STATE_BYTES = 2**16


class FakeWorker:
    """Answers an utterance with SAMPLES of silence, until it becomes odd."""

    def __init__(self, index: int, folder: Path, kind: str) -> None:
        self._index = index
        self._folder = folder
        self._kind = kind
        self._done = 0
        self._last_id = ""

    def _is(self, kind: str) -> bool:
        return self._kind == kind and (self._folder / MARK).exists()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await read_body(reader, head)
                if b" /state " in head.split(b"\r\n")[0]:
                    await self._state(writer)
                else:
                    await self._utterance(writer, json.loads(body)["id"])
        writer.close()

    async def _state(self, writer: asyncio.StreamWriter) -> None:
        body = self._state_json()
        if self._is("endless-state"):
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{"')
            while True:
                writer.write(b"x" * STATE_BYTES)
                await writer.drain()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()

    def _state_json(self) -> bytes:
        state = WorkerState(
            index=self._index,
            pid=os.getpid(),
            phase=Phase.READY,
            engine="hibari",
            model="fake",
            sample_rate=24_000,
            cores=(0,),
            threads=1,
            slots=1,
            in_flight=(),
            done=self._done,
            progress=self._done,
            speed=7.0,
            voices_prepared=(),
            resident_bytes=1,
            cpu_seconds=0.0,
            started_at=time.time(),
        )
        text = state.model_dump_json()
        if self._is("nan-state"):
            text = text.replace('"speed":7.0', '"speed":NaN').replace('"cpu_seconds":0.0', '"cpu_seconds":Infinity')
        return text.encode()

    async def _utterance(self, writer: asyncio.StreamWriter, utterance_id: str) -> None:
        if self._is("silent"):
            await asyncio.Event().wait()
        if self._is("garbage"):
            writer.write(b"\0\xff\xfe nonsense\r\n\r\n" * 100)
            return
        self._done += 1
        if self._is("late") and self._last_id:
            await self._answer(writer, self._last_id, LATE)
            await asyncio.sleep(LATE_SECONDS)
        await self._answer(writer, utterance_id, OWN)
        self._last_id = utterance_id

    async def _answer(self, writer: asyncio.StreamWriter, utterance_id: str, sample: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        frame = encode_frame(FrameKind.PCM, sample * SAMPLES)
        end = _message(FrameKind.END, EndOfUtterance, id=utterance_id, samples=SAMPLES, compute_seconds=0.0)
        if self._is("failing"):
            frame = b""
            end = _message(FrameKind.ERROR, UtteranceError, id=utterance_id, code="internal", message="it fails")
        while self._is("endless"):
            writer.write(_chunk(frame * FRAMES))
            await writer.drain()
        writer.write(_chunk(frame + end) + b"0\r\n\r\n")
        await writer.drain()


def _message(kind: FrameKind, model: type[BaseModel], **fields: object) -> bytes:
    """A closing frame, with those of the fields that this version of the contract has."""
    known = {name: value for name, value in fields.items() if name in model.model_fields}
    return encode_frame(kind, json.dumps(known).encode())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(worker: FakeWorker, listener: socket.socket) -> None:
    async with await asyncio.start_unix_server(worker.handle, sock=listener) as server:
        await server.serve_forever()


def main() -> None:
    """Serve on a Unix socket in the folder, until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    arguments = parser.parse_args()
    worker = FakeWorker(arguments.index, arguments.folder, arguments.kind)
    asyncio.run(_serve(worker, listen(arguments.folder / f"worker-{arguments.index}.sock")))


if __name__ == "__main__":
    main()
