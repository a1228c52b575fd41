"""The speech service: one request to one finished piece of audio. Dispatches, then encodes off the event loop.

Cache, coalescing and splitting belong here, around the dispatch.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass

from balancer.audio import AudioFormat, duration, encode
from balancer.dispatch import Dispatcher
from balancer.errors import DeadlineExceededError, InvalidRequestError
from balancer.schemas import SpeechRequest
from balancer.telemetry import Telemetry
from worker.cards import EngineCard
from worker.contract import Utterance

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audio:
    """Finished audio: the bytes of a file in `format`, `seconds` long."""

    data: bytes
    format: AudioFormat
    sample_rate: int
    seconds: float
    cached: bool = False


class SpeechService:
    """Speaks requests with one engine within `timeout` seconds each."""

    def __init__(self, dispatcher: Dispatcher, telemetry: Telemetry, card: EngineCard, timeout: float) -> None:
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._card = card
        self._timeout = timeout

    async def speak(self, request: SpeechRequest) -> Audio:
        """Speak and encode. Raises ChorusError; cancelling it cancels the utterance."""
        utterance = Utterance(
            id=secrets.token_hex(8),
            text=request.text,
            voice=request.voice.name,
            seed=request.seed,
            parameters=request.parameters,
        )
        try:
            async with asyncio.timeout(self._timeout):
                pcm = await self._dispatcher.synthesize(utterance)
        except InvalidRequestError as error:
            # Only the engine could tell that it cannot say this.
            error.param = request.text_field
            raise
        except TimeoutError as error:
            raise DeadlineExceededError(f"not spoken within {self._timeout:g} s; try a shorter text") from error
        rate = self._card.sample_rate
        data = await asyncio.to_thread(encode, pcm, rate, request.format, request.speed)
        self._telemetry.spoken(duration(pcm, rate))
        return Audio(data, request.format, rate, duration(pcm, rate) / request.speed)
