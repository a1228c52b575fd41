"""The client of the load test: asks the server for speech and judges whether what came back is audio."""

import asyncio
import json
import math
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

READY_TIMEOUT = 10.0
KEEPALIVE_EXPIRY = 2.0
"""Seconds, fewer than servers keep idle connections (uvicorn: 5): one used just as it is closed would count
against the server."""

PCM_RATE = 24_000
"""Samples a second of headerless PCM, unless its media type says otherwise."""


class ServerNotReadyError(Exception):
    """The server cannot be tested; the message says why."""


class BadAudioError(ValueError):
    """The body is not the audio that was asked for."""


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    error: str | None
    """The kind of failure; None when whole audio came back."""
    audio_seconds: float | None = None


class SpeechClient:
    """One server, asked for speech in one voice and format, over a connection for each request under way.

    Each connection is an HTTP client with a pool of one: a larger pool looks through all of its connections
    at every request and answer, which with a thousand outstanding added five seconds to latencies of eight.
    """

    def __init__(
        self,
        url: str,
        *,
        voice: str | None,
        audio_format: str,
        api_key: str | None,
        timeout: float,
    ) -> None:
        self._url = url
        self._settings = {"format": audio_format} | ({"voice": voice} if voice else {})
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
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
        """Raise ServerNotReadyError unless the server says that it can serve."""
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

    async def speak(self, text: str) -> Answer:
        """Ask for `text`; returns when the whole answer is here or it is clear that there will be none."""
        try:
            async with asyncio.timeout(self._timeout), self._connection() as http:
                response = await http.post("/tts", json={"text": text, **self._settings})
        except TimeoutError:
            return Answer("timeout")
        except httpx.RequestError:
            return Answer("connection")
        if response.status_code != 200:
            return Answer(f"HTTP {response.status_code} {_error_code(response)}".rstrip())
        try:
            return Answer(None, audio_seconds(self._settings["format"], response.headers, response.content))
        except BadAudioError:
            return Answer("bad audio")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        """Lend the connection used last, or a new one where all are in use."""
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
            trust_env=False,  # a proxy in between would be measured too
            verify=self._tls,
        )


def _error_code(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["code"] or "")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return ""


def audio_seconds(audio_format: str, headers: httpx.Headers, body: bytes) -> float | None:
    """Return the length of the audio, None where neither header nor format tells. Raises BadAudioError.

    What the server states in `X-Audio-Seconds` counts more than the body's own length, but saves no bad body.
    """
    if not body:
        raise BadAudioError("empty")
    measured = None
    if audio_format == "wav":
        measured = wav_seconds(body)
    elif audio_format == "pcm":
        measured = _pcm_seconds(headers, body)
    try:
        stated = float(headers.get("x-audio-seconds", ""))
    except ValueError:
        return measured
    return stated if math.isfinite(stated) and stated >= 0 else measured


def _pcm_seconds(headers: httpx.Headers, body: bytes) -> float:
    samples, rest = divmod(len(body), 2)
    if rest:
        raise BadAudioError("half a sample at the end")
    rate = re.search(r"rate=(\d+)", headers.get("content-type", ""))
    return samples / (int(rate[1]) if rate else PCM_RATE)


_UNKNOWN_SIZE = 0x7FFF_0000
"""Chunk sizes from here on are what streaming encoders write who do not know the length yet."""


def wav_seconds(body: bytes) -> float:
    """Return the length of a WAV file, even a streamed one with no length in its header. Raises BadAudioError."""
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
        raise BadAudioError("no samples, too few, or of no known rate")
    return size / byte_rate
