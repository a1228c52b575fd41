"""Responses that are sent while their audio is made, and audio as server-sent events."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from balancer.api.models.error import Error
from balancer.api.models.speech import SpeechAudioDelta, SpeechAudioDone, SpeechUsage
from balancer.api.reading import CLIENT_WATCH
from balancer.api.responses import ClientGoneError, json_object
from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import HeldAudio
from balancer.errors import ChorusError
from balancer.requests.bodies import StreamFormat
from balancer.speech.results import Audio

log = logging.getLogger(__name__)

EVENT_BYTES = 48 * 1024
"""Bytes of audio in one event, at most. Three bytes make four characters: multiples of three have no padding."""
TOKENS_PER_SECOND = 25
"""Speech tokens of a second of audio, as Chatterbox makes them and `usage` counts them."""

NOT_BUFFERED = {"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"}
"""Headers by which proxies pass each piece on as it comes: they do not collect it, keep it or compress it."""


class Stream(Protocol):
    """An asynchronous iterator of the pieces of one audio stream. Raises ChorusError."""

    format: AudioFormat
    seconds: float
    """Length of the audio that has been sent."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""


class StreamResponse(Response):
    """The audio as it is made, or events with it. The end of the response ends `resources`.

    If it fails, the connection is broken off before its end, after an `error` event where there are events: a client
    never takes a part for the whole.
    """

    def __init__(
        self,
        stream: Stream,
        resources: AsyncExitStack,
        stream_format: StreamFormat,
        *,
        characters: int,
        headers: Mapping[str, str],
    ) -> None:
        events = stream_format is StreamFormat.SSE
        media_type = "text/event-stream" if events else stream.format.media_type
        super().__init__(media_type=media_type, headers={**NOT_BUFFERED, **headers})
        del self.headers["content-length"]
        self._stream = stream
        self._resources = resources
        self._events = events
        self._characters = characters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Each piece waits until the client has read most of those before."""
        scope["state"]["log_fields"].streamed = True
        try:
            async with self._resources:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._send_all(scope, send)
        except ClientGoneError:
            pass  # nobody is left to be told

    async def _send_all(self, scope: Scope, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            async for piece in self._stream:
                for part in _events_of(piece) if self._events else (piece,):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except ChorusError as error:
            fields = {"request": scope["state"]["request_id"]}
            log.warning("a stream was broken off: %s", error, extra={"fields": fields})
            if self._events:
                event = _event(json_object(Error.of(error)), name="error")
                await send({"type": "http.response.body", "body": event, "more_body": True})
            scope["extensions"][CLIENT_WATCH]().abort()
            return
        last = _done(self._characters, self._stream.seconds) if self._events else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})


class EventsResponse(Response):
    """Whole audio as events."""

    def __init__(self, held: HeldAudio, audio: Audio, *, characters: int, headers: Mapping[str, str]) -> None:
        super().__init__(media_type="text/event-stream", headers={**headers, **NOT_BUFFERED})
        del self.headers["content-length"]
        self._held = held
        self._audio = audio
        self._characters = characters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self._all():
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _all(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._audio.data), EVENT_BYTES):
            for event in _events_of(await self._held.read(self._audio.data, start, EVENT_BYTES)):
                yield event
        yield _done(self._characters, self._audio.seconds)


def _events_of(audio: bytes) -> list[bytes]:
    """The events with a piece of audio."""
    pieces = [audio[start : start + EVENT_BYTES] for start in range(0, len(audio), EVENT_BYTES)]
    return [
        _event(json_object(SpeechAudioDelta(type="speech.audio.delta", audio=b64encode(piece).decode("ascii"))))
        for piece in pieces
    ]


def _done(characters: int, seconds: float) -> bytes:
    """The last event. OpenAI's clients want tokens: here characters of the text, and speech tokens of its audio."""
    tokens = round(TOKENS_PER_SECOND * seconds)
    usage = SpeechUsage(input_tokens=characters, output_tokens=tokens, total_tokens=characters + tokens)
    return _event(json_object(SpeechAudioDone(type="speech.audio.done", usage=usage)))


def _event(content: Mapping[str, object], *, name: str | None = None) -> bytes:
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(content, separators=(',', ':'))}\n\n".encode("ascii")
