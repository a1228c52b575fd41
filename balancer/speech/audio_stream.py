"""One answer that is sent while it is made: the audio of a text's segments, in order, encoded as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.encoder import is_pcm_copy
from balancer.audio.held_audio import HeldAudio
from balancer.audio.joining import Joiner
from balancer.audio.pcm import duration
from balancer.audio.stream_encoder import StreamEncoder
from balancer.errors import ChorusError, DeadlineExceededError, InvalidRequestError
from balancer.metrics import Metrics
from balancer.requests.speech_request import SpeechRequest
from balancer.settings_groups import PauseSettings, StreamSettings
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from balancer.speech.playout_clock import PlayoutClock
from balancer.speech.results import CachedResult, joined_result
from balancer.speech.segment_buffer import SegmentBuffer
from balancer.speech.segment_requests import pause_behind
from balancer.text.segments import Segment

Take = Callable[[int, CachedResult | InvalidRequestError], Awaitable[None]]
"""Called with each segment's number and its PCM, or the refusal of one that the engine cannot say."""


class AudioStream:
    """An asynchronous iterator of the pieces of one audio stream. `begin` waits for the first; it is to be closed.

    `speak` speaks the segments. After the first piece, the next one has `timeout` seconds each time. `on_end` is called
    once all has been sent.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        speak: Callable[[Take], Awaitable[None]],
        request: SpeechRequest,
        place: Place,
        *,
        sample_rate: int,
        pauses: PauseSettings,
        settings: StreamSettings,
        timeout: float,
        held: HeldAudio,
        encoders: EncoderPool,
        metrics: Metrics,
        on_end: Callable[[CachedResult], None],
    ) -> None:
        self.format = request.format
        self.sample_rate = sample_rate
        self.seconds = 0.0
        """Length of the audio that has been sent, after the tempo change."""
        self._segments = segments
        self._speak = speak
        self._speed = request.speed
        self._place = place
        self._pauses = pauses
        self._timeout = timeout
        self._held = held
        self._encoders = encoders
        self._metrics = metrics
        self._on_end = on_end
        self._buffer: SegmentBuffer[CachedResult | InvalidRequestError] = SegmentBuffer(settings.stream_ahead_seconds)
        self._clock = PlayoutClock()
        self._results: list[CachedResult] = []
        self._pieces = self._make()
        self._first: bytes | None = None
        self._speaking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Wait for the first piece. Raises ChorusError: nothing has been sent by then."""
        self._speaking = asyncio.create_task(self._speak_all())
        self._metrics.streams.inc()
        self._first = await anext(self._pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises ChorusError."""
        if self._first is not None:
            piece, self._first = self._first, None
            return piece
        try:
            async with asyncio.timeout(self._timeout):
                return await anext(self._pieces)
        except TimeoutError as error:
            late = DeadlineExceededError(f"the next audio was not made within {self._timeout:g} s")
            self._metrics.record_refusal(late.code)
            raise late from error
        except ChorusError as error:
            self._metrics.record_refusal(error.code)
            raise

    async def aclose(self) -> None:
        """End the stream, and whatever is still made for it."""
        if self._speaking is not None:
            self._metrics.streams.dec()
            self._speaking.cancel()
            await asyncio.gather(self._speaking, return_exceptions=True)
            self._speaking = None
        await self._pieces.aclose()

    async def _speak_all(self) -> None:
        try:
            await self._speak(self._take)
        except ChorusError as error:
            self._buffer.fail(error)

    async def _take(self, number: int, result: CachedResult | InvalidRequestError) -> None:
        await self._buffer.add(number, result, result.seconds if isinstance(result, CachedResult) else 0.0)

    async def _make(self) -> AsyncGenerator[bytes, None]:
        joiner = Joiner(self.sample_rate)
        encoder = StreamEncoder(self.sample_rate, self.format, self._speed)
        before: Segment | None = None
        refusal: InvalidRequestError | None = None
        for segment in self._segments:
            result = await self._buffer.take()
            if isinstance(result, InvalidRequestError):
                refusal = result
                continue
            pause = segment.leading_silence if before is None else pause_behind(before, self._pauses)
            before = segment
            samples = await self._held.read(result.data, 0, len(result.data))
            pcm = joiner.add(samples, pause)
            self._results.append(replace(result, data=MemoryBuffer(b"")))
            del result, samples
            if piece := await self._encode(partial(encoder.feed, pcm), pcm):
                yield piece
            self._buffer.sent()
        if before is None:
            assert refusal is not None  # noqa: S101 - a text has segments
            raise refusal
        pcm = joiner.finish(before.silence or 0.0)
        if piece := await self._encode(lambda: encoder.feed(pcm) + encoder.finish(), pcm):
            yield piece
        self._on_end(self._result())

    async def _encode(self, work: Callable[[], bytes], pcm: bytes) -> bytes:
        seconds = duration(len(pcm), self.sample_rate)
        if is_pcm_copy(self.format, self._speed):
            piece = work()
        else:
            piece = await self._encoders.run(work, seconds / min(1.0, self._speed), self._place, begun=self.seconds > 0)
        played = seconds / self._speed
        self.seconds += played
        self._metrics.record_stream_gap(self._clock.sent(played, asyncio.get_running_loop().time()))
        return piece

    def _result(self) -> CachedResult:
        """All that was spoken, without its audio."""
        return joined_result(MemoryBuffer(b""), self.seconds * self._speed, self._results)
