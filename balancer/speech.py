"""The speech service: one request to one finished piece of audio. Dispatches, then encodes off the event loop.

Cache, coalescing and splitting belong here, around the dispatch.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any

from balancer.audio import AudioFormat, duration, encode, is_cheap
from balancer.dispatch import Dispatched, Dispatcher, Terms
from balancer.errors import ChorusError, DeadlineExceededError, InvalidRequestError
from balancer.schemas import SpeechRequest
from balancer.telemetry import Telemetry
from worker.cards import EngineCard
from worker.contract import Utterance


@dataclass(frozen=True)
class Audio:
    """Finished audio: the bytes of a file in `format`, `seconds` long."""

    data: bytes
    format: AudioFormat
    sample_rate: int
    seconds: float
    cached: bool = False


@dataclass(frozen=True)
class Origin:
    """Who asks, and by when; `arrived` is on the event loop's clock."""

    request_id: str
    caller: str
    """API key or address: callers take turns."""
    arrived: float
    deadline_ms: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """What becomes of the request, for its line in the log."""


class SpeechService:
    """Speaks requests with one engine within `timeout` seconds each."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        card: EngineCard,
        *,
        timeout: float,
        log_text: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._card = card
        self._timeout = timeout
        self._log_text = log_text

    async def speak(self, request: SpeechRequest, origin: Origin) -> Audio:
        """Speak and encode. Raises ChorusError; cancelling it cancels the utterance."""
        origin.facts.update(characters=len(request.text), voice=request.voice.name, caller=origin.caller)
        if self._log_text:
            origin.facts["text"] = request.text
        limit, deadline = self._limit(request, origin)
        try:
            async with asyncio.timeout_at(origin.arrived + limit):
                spoken = await self._dispatcher.synthesize(
                    self._utterance(request, origin), Terms(origin.caller, request.priority, deadline)
                )
                origin.facts.update(
                    worker=spoken.worker,
                    attempts=spoken.attempts,
                    waited=round(spoken.waited, 4),
                    compute_seconds=round(spoken.compute_seconds, 4),
                )
                data = await self._encode(spoken, request)
        except InvalidRequestError as error:
            # Only the engine could tell that it cannot say this.
            error.param = request.text_field
            self._telemetry.refused(error.code)
            raise
        except ChorusError as error:
            self._telemetry.refused(error.code)
            raise
        except TimeoutError as error:
            late = DeadlineExceededError(f"not spoken within {limit:g} s; try a shorter text or a later deadline")
            self._telemetry.refused(late.code)
            raise late from error
        seconds = duration(spoken.pcm, self._card.sample_rate)
        origin.facts["audio_seconds"] = round(seconds, 3)
        self._telemetry.spoken(seconds)
        return Audio(data, request.format, self._card.sample_rate, seconds / request.speed)

    def _limit(self, request: SpeechRequest, origin: Origin) -> tuple[float, float | None]:
        """Seconds for the whole request, and the client's deadline on the event loop's clock."""
        given = [limit / 1000 for limit in (request.deadline_ms, origin.deadline_ms) if limit is not None]
        if not given:
            return self._timeout, None
        return min(*given, self._timeout), origin.arrived + min(given)

    def _utterance(self, request: SpeechRequest, origin: Origin) -> Utterance:
        return Utterance(
            id=secrets.token_hex(8),
            text=request.text,
            voice=request.voice.name,
            seed=request.seed,
            parameters=request.parameters,
            request_id=origin.request_id,
        )

    async def _encode(self, spoken: Dispatched, request: SpeechRequest) -> bytes:
        rate = self._card.sample_rate
        if is_cheap(spoken.pcm, request.format, request.speed):
            return encode(spoken.pcm, rate, request.format)
        abandoned = threading.Event()
        try:
            return await asyncio.to_thread(encode, spoken.pcm, rate, request.format, request.speed, abandoned.is_set)
        except asyncio.CancelledError:
            abandoned.set()
            self._telemetry.cancelled("encoding")
            self._telemetry.wasted("cancelled", spoken.compute_seconds)
            raise
