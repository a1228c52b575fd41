"""The client of the load test: asks the server for speech and checks the audio of the answer."""

import asyncio
import json
import math
import re
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from balancer.speech.playout_clock import PlayoutClock
from worker.contract import SAMPLE_BYTES

READY_TIMEOUT = 10.0
KEEPALIVE_EXPIRY = 2.0
"""Seconds; less than servers keep idle connections (uvicorn: 5). A request on a connection that the server is about to
close would count as a failure of the server."""

PCM_RATE = 24_000
"""Samples per second of raw PCM, unless the media type states another rate."""


class ServerNotReadyError(RuntimeError):
    """The server is not ready; the message says why."""


class BadAudioError(ValueError):
    """The body of an answer is not complete audio in the requested format."""


@dataclass(frozen=True)
class SegmentCount:
    """The segments of a text."""

    total: int
    cached: int
    """Segments that were not spoken for this request."""

    @property
    def spoken(self) -> int:
        """Segments that were spoken for this request."""
        return self.total - self.cached

    @classmethod
    def of(cls, headers: httpx.Headers) -> Self | None:
        """The count in the header `X-Cache-Segments`, such as `2/3`; None without it."""
        found = re.fullmatch(r"(\d+)/(\d+)", headers.get("x-cache-segments", ""))
        return cls(total=int(found[2]), cached=int(found[1])) if found else None


@dataclass(frozen=True)
class SpeechResult:
    """The result of one request."""

    error: str | None
    """The kind of failure; None if the answer is complete audio."""
    audio_seconds: float | None = None
    """The length of the audio; None if neither the format nor a header states it."""
    segments: SegmentCount | None = None
    """None if the server does not state it."""
    first_sound: float | None = None
    """Seconds until the first audio of a stream; None if it was not streamed."""
    gaps: int = 0
    """Times that a listener who plays the stream as it comes had nothing to play."""


class SpeechClient:
    """A client of one server that asks for one voice and format, on one connection per concurrent request.

    Each connection is an HTTP client with a pool of one: httpx searches a pool at every request and response, which
    added 5 s to latencies of 8 s with a thousand concurrent requests.
    """

    def __init__(
        self,
        url: str,
        *,
        voice: str | None,
        audio_format: str,
        api_key: str | None,
        timeout: float,
        use_cache: bool = True,
        stream: bool = False,
    ) -> None:
        """Without `use_cache`, the server neither takes audio from its cache nor puts any there.

        With `stream`, the audio is heard as it comes, as PCM.
        """
        self._url = url
        self._format = "pcm" if stream else audio_format
        self._settings: dict[str, object] = {"format": self._format}
        if voice:
            self._settings["voice"] = voice
        self._stream = stream
        if stream:
            self._settings["stream"] = True
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        if not use_cache:
            self._headers["Cache-Control"] = "no-store"
        self._tls = httpx.create_ssl_context()
        self._idle: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._idle:
            await connection.aclose()

    async def check_ready(self) -> None:
        """Raise ServerNotReadyError unless `GET /ready` answers 200."""
        try:
            async with self._connection() as http:
                response = await http.get("/ready", timeout=READY_TIMEOUT)
        except httpx.TimeoutException:
            raise ServerNotReadyError(f"{self._url} did not answer within {READY_TIMEOUT:.0f} s") from None
        except httpx.RequestError as error:
            raise ServerNotReadyError(
                f"no server answers at {self._url} ({error}): start one with scripts/serve, or name another with --url"
            ) from None
        if response.status_code != 200:
            raise ServerNotReadyError(
                f"{self._url} is not ready: GET /ready answered {response.status_code} {response.text[:500]}"
            )

    async def synthesize(self, text: str) -> SpeechResult:
        """Ask for `text` and await the complete answer, or its failure."""
        try:
            async with asyncio.timeout(self._timeout), self._connection() as http:
                if self._stream:
                    return await self._listen(http, text)
                response = await http.post("/tts", json={"text": text, **self._settings})
        except TimeoutError:
            return SpeechResult("timeout")
        except httpx.RequestError:
            return SpeechResult("connection")
        if response.status_code != 200:
            return SpeechResult(f"HTTP {response.status_code} {_error_code(response)}".rstrip())
        try:
            seconds = audio_seconds(self._format, response.headers, response.content)
            return SpeechResult(None, seconds, SegmentCount.of(response.headers))
        except BadAudioError:
            return SpeechResult("bad audio")

    async def _listen(self, http: httpx.AsyncClient, text: str) -> SpeechResult:
        began, first, size = time.monotonic(), None, 0
        clock = PlayoutClock()
        async with http.stream("POST", "/tts", json={"text": text, **self._settings}) as response:
            if response.status_code != 200:
                await response.aread()
                return SpeechResult(f"HTTP {response.status_code} {_error_code(response)}".rstrip())
            async for piece in response.aiter_raw():
                now = time.monotonic() - began
                first = now if first is None else first
                clock.sent(_pcm_seconds(response.headers, len(piece)), now)
                size += len(piece)
        if first is None or size % SAMPLE_BYTES:
            return SpeechResult("bad audio")
        return SpeechResult(
            None, _pcm_seconds(response.headers, size), SegmentCount.of(response.headers), first, clock.gaps
        )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        """The idle connection that was used last, or a new one if all are in use."""
        http = self._idle.pop() if self._idle else self._connect()
        try:
            yield http
        finally:
            self._idle.append(http)

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_EXPIRY),
            timeout=None,
            trust_env=False,  # the time of a proxy would be measured, too
            verify=self._tls,
        )


def _error_code(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["code"] or "")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return ""


def audio_seconds(audio_format: str, headers: httpx.Headers, body: bytes) -> float | None:
    """The length of the audio; None if neither the format nor a header states it. Raises BadAudioError.

    The header `X-Audio-Seconds` takes precedence over the length of the body, which is checked all the same.
    """
    if not body:
        raise BadAudioError("empty")
    measured = None
    if audio_format == "wav":
        measured = wav_seconds(body)
    elif audio_format == "pcm":
        if len(body) % SAMPLE_BYTES:
            raise BadAudioError("it ends within a sample")
        measured = _pcm_seconds(headers, len(body))
    try:
        stated = float(headers.get("x-audio-seconds", ""))
    except ValueError:
        return measured
    return stated if math.isfinite(stated) and stated >= 0 else measured


def _pcm_seconds(headers: httpx.Headers, size: int) -> float:
    rate = re.search(r"rate=(\d+)", headers.get("content-type", ""))
    return size / SAMPLE_BYTES / (int(rate[1]) if rate else PCM_RATE)


_UNKNOWN_SIZE = 0x7FFF_0000
"""Streaming encoders, which do not know the length yet, write chunk sizes of at least this value."""


def wav_seconds(body: bytes) -> float:
    """The length of a WAV file, also of a streamed one without a length in its header. Raises BadAudioError."""
    if body[:4] != b"RIFF" or body[8:12] != b"WAVE":
        raise BadAudioError("not a WAV file")
    byte_rate = 0
    at = 12
    while at + 8 <= len(body):
        name, size = struct.unpack_from("<4sI", body, at)
        at += 8
        if name == b"fmt " and at + 16 <= len(body):
            byte_rate = struct.unpack_from("<I", body, at + 8)[0]
        elif name == b"data":
            return _data_seconds(size, len(body) - at, byte_rate)
        at += size + size % 2
    raise BadAudioError("no samples")


def _data_seconds(declared: int, present: int, byte_rate: int) -> float:
    unknown = declared == 0 or declared >= _UNKNOWN_SIZE
    size = present if unknown else declared
    if not size or size > present or not byte_rate:
        raise BadAudioError("no samples, too few samples, or no sample rate")
    return size / byte_rate
