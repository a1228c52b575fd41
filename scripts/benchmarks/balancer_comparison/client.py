"""The client of HAProxy: it follows the worker contract, as HAProxy forwards requests unchanged."""

from __future__ import annotations

import asyncio
import secrets
import zlib

import httpx
from pydantic import ValidationError

from balancer.load.client import BadAudioError, SpeechClient, SpeechResult
from balancer.requests.bodies import DEFAULT_VOICE
from worker.contract import (
    SAMPLE_BYTES,
    EndOfUtterance,
    FrameDecoder,
    FrameKind,
    FramingError,
    Utterance,
    UtteranceError,
)


class UtteranceClient(SpeechClient):
    """Sends utterances as Chorus's balancer does, on the same kind of connections as the client of Chorus."""

    def __init__(self, url: str, *, sample_rate: int, timeout: float) -> None:
        super().__init__(url, voice=None, audio_format="pcm", api_key=None, timeout=timeout)
        self._sample_rate = sample_rate

    async def synthesize(self, text: str) -> SpeechResult:
        """Ask for `text` and await the complete answer, or its failure."""
        utterance = Utterance(
            id=secrets.token_hex(8), text=text, voice=DEFAULT_VOICE, seed=zlib.crc32(text.encode("utf-8"))
        )
        try:
            async with asyncio.timeout(self._timeout), self._connection() as http:
                response = await http.post("/synthesize", content=utterance.model_dump_json())
        except TimeoutError:
            return SpeechResult("timeout")
        except httpx.RequestError:
            return SpeechResult("connection")
        if response.status_code != 200:
            return SpeechResult(f"HTTP {response.status_code} {_error_code(response.content)}".rstrip())
        try:
            return SpeechResult(None, utterance_seconds(response.content, self._sample_rate))
        except BadAudioError as error:
            return SpeechResult(f"bad audio: {error}")


def utterance_seconds(body: bytes, sample_rate: int) -> float:
    """The length of the audio in a worker's answer. Raises BadAudioError unless the answer is complete."""
    try:
        frames = FrameDecoder().feed(body)
        kind, payload = frames[-1] if frames else (FrameKind.PCM, b"")
        if kind is FrameKind.ERROR:
            raise BadAudioError(UtteranceError.model_validate_json(payload).code)
        if kind is not FrameKind.END:
            raise BadAudioError("truncated")
        samples = EndOfUtterance.model_validate_json(payload).samples
    except (FramingError, ValidationError) as error:
        raise BadAudioError("not in the format of the worker contract") from error
    if not samples or sum(len(pcm) for _, pcm in frames[:-1]) != samples * SAMPLE_BYTES:
        raise BadAudioError("samples are missing")
    return samples / sample_rate


def _error_code(body: bytes) -> str:
    """The error code of a worker's refusal; empty if HAProxy itself refused."""
    try:
        return UtteranceError.model_validate_json(body).code
    except ValidationError:
        return ""
