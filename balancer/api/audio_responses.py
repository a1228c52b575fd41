"""Responses with audio that is sent in pieces: however long it is, a client that does not read holds few of them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from balancer.api.responses import json_object
from balancer.audio.buffers import PIECE_BYTES, AudioBuffer
from balancer.audio.held_audio import HeldAudio

BASE64_PIECE_BYTES = PIECE_BYTES // 4 * 3
"""Three bytes make four characters: a piece that is a multiple of three has no padding."""


class BufferResponse(Response):
    """The audio as the body; with `part`, only these bytes of it (206)."""

    def __init__(
        self,
        held: HeldAudio,
        audio: AudioBuffer,
        *,
        media_type: str,
        headers: Mapping[str, str],
        length: int | None = None,
        part: range | None = None,
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        self._part = range(len(audio)) if part is None else part
        if part is not None:
            self.status_code = 206
            self.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(audio)}"
        self.headers["Content-Length"] = str(len(self._part) if length is None else length)
        self._held = held
        self._audio = audio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Each piece waits until the client has read most of those before."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._send_body(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_body(self, send: Send) -> None:
        for start in self._part[::PIECE_BYTES]:
            size = min(PIECE_BYTES, self._part.stop - start)
            await _send(send, await self._held.read(self._audio, start, size))


class JsonAudioResponse(BufferResponse):
    """A JSON object whose first member, `audio`, is the audio in base64; `content` has it empty."""

    def __init__(self, held: HeldAudio, audio: AudioBuffer, content: BaseModel, *, headers: Mapping[str, str]) -> None:
        text = json.dumps(json_object(content), allow_nan=False, separators=(",", ":")).encode("ascii")
        self._head, self._tail = b'{"audio":"', text.removeprefix(b'{"audio":"')
        length = len(text) + (len(audio) + 2) // 3 * 4
        super().__init__(held, audio, media_type="application/json", headers=headers, length=length)

    async def _send_body(self, send: Send) -> None:
        await _send(send, self._head)
        for start in range(0, len(self._audio), BASE64_PIECE_BYTES):
            await _send(send, b64encode(await self._held.read(self._audio, start, BASE64_PIECE_BYTES)))
        await _send(send, self._tail)


async def _send(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})
