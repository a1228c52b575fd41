"""One answer that is sent while it is made: the audio of a text's segments, in order, encoded as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.held_audio import HeldAudio
from balancer.audio.joining import Joiner
from balancer.audio.pcm import duration
from balancer.audio.stream_encoder import StreamEncoder
from balancer.errors import ChorusError, DeadlineExceededError, InvalidRequestError
from balancer.metrics import Metrics
from balancer.requests.speech_request import SpeechRequest
from balancer.scheduling.playout_delay import SegmentProgress, StreamPace, earliest_start
from balancer.scheduling.queued_utterance import NOTHING_HEARD
from balancer.scheduling.stream_headroom import StreamDemand, StreamHeadroom
from balancer.settings.speech import PauseSettings, StreamSettings
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from balancer.speech.playout_clock import PlayoutClock
from balancer.speech.results import CachedResult, joined_result
from balancer.speech.segment_buffer import SegmentBuffer
from balancer.speech.segment_requests import pause_before
from balancer.text.segments import Segment


@dataclass
class _Position:
    """The progress of a stream's sending."""

    segment: int = 0
    size: int = 0
    """Bytes of the segment's PCM."""


class AudioStream:
    """An asynchronous iterator of the pieces of one audio stream. `begin` waits for the first; it is to be closed.

    `speak` speaks the segments, and gives them to `on_pcm` and `take`; `lengths` are the seconds that they are expected
    to last, `pace` what the host makes of so many of them at once. After the first piece, the next one has `timeout`
    seconds each time. `on_end` is called once all has been sent.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        speak: Callable[[AudioStream], Awaitable[None]],
        lengths: Sequence[float],
        pace: Callable[[int], StreamPace],
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
        headroom: StreamHeadroom,
        on_end: Callable[[CachedResult], None],
    ) -> None:
        self.format = request.format
        self.sample_rate = sample_rate
        self.seconds = 0.0
        """Length of the audio that has been sent, after the tempo change."""
        self._segments = segments
        self._speak = speak
        self._progress = [SegmentProgress(seconds) for seconds in lengths]
        """Of each segment, before any tempo change."""
        self._pace = pace
        self._position = _Position()
        self._speed = request.speed
        self._place = place
        self._pauses = pauses
        self._timeout = timeout
        self._max_delay = min(settings.stream_delay_seconds, timeout / 2)
        self._held = held
        self._encoders = encoders
        self._metrics = metrics
        self._headroom = headroom
        self._on_end = on_end
        self._latest_start = 0.0
        """Time of the event loop until which the first sound may be held back."""
        self._buffer: SegmentBuffer[CachedResult | InvalidRequestError] = SegmentBuffer(settings.stream_ahead_seconds)
        self._clock = PlayoutClock()
        self._results: list[CachedResult] = []
        self._pieces = self._make()
        self._first: bytes | None = None
        self._speaking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Wait for the first piece. Raises ChorusError: nothing has been sent by then."""
        now = asyncio.get_running_loop().time()
        self._latest_start = now + self._max_delay
        demand = StreamDemand(self._speed, ends_at=now + self._seconds_of(self._progress) / self._speed)
        self._headroom.add(demand)
        self._speaking = asyncio.create_task(self._speak_all())
        self._speaking.add_done_callback(lambda _: self._headroom.remove(demand))
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
        self._first = None
        self._buffer.clear()  # exceptions refer to this stream, and may be left to the garbage collector

    def on_pcm(self, number: int, pcm: bytes) -> None:
        """Give the stream a piece of a segment that is being made."""
        self._progress[number].made += duration(len(pcm), self.sample_rate)
        self._buffer.extend(number, pcm)

    async def take(self, number: int, result: CachedResult | InvalidRequestError) -> None:
        """Give the stream a segment's PCM, or the refusal of one that the engine cannot say.

        Waits until another segment may be made.
        """
        progress = self._progress[number]
        progress.seconds = result.seconds if isinstance(result, CachedResult) else 0.0
        progress.finished = True
        await self._buffer.add(number, result, progress.seconds)

    def begin_segment(self, number: int) -> float:
        """Note that a segment is begun; the time at which the listener will have played all that comes before it.

        On the event loop's clock, as estimated now; NOTHING_HEARD for the first one. The pauses between segments are
        left out.
        """
        now = asyncio.get_running_loop().time()
        self._progress[number].begun = now
        if number == 0:
            return NOTHING_HEARD
        coming = self._seconds_of(self._progress[self._position.segment : number])
        unsent = coming - duration(self._position.size, self.sample_rate)
        return now + self._clock.ahead(now) + max(0.0, unsent) / self._speed

    async def _speak_all(self) -> None:
        try:
            await self._speak(self)
        except ChorusError as error:
            self._buffer.fail(error)

    async def _make(self) -> AsyncGenerator[bytes, None]:
        joiner = Joiner(self.sample_rate)
        encoder = StreamEncoder(self.sample_rate, self.format, self._speed)
        last: Segment | None = None
        refusal: InvalidRequestError | None = None
        for number, segment in enumerate(self._segments):
            self._position = _Position(number)
            while not isinstance(taken := await self._buffer.take(), InvalidRequestError):
                if last is None:
                    await self._hold_back()
                finished = isinstance(taken, CachedResult)
                pcm = b"" if segment is last else joiner.begin(pause_before(segment, last, self._pauses))
                pcm += joiner.feed(await self._samples(taken))
                last = segment
                del taken  # a client that does not read holds no more than this piece
                if (pcm or finished) and (piece := await self._encode(partial(encoder.feed, pcm), pcm)):
                    yield piece
                if finished:
                    self._buffer.sent()
                    break
            else:
                if segment is last:
                    raise taken  # a part of it has been sent
                refusal = taken
        if last is None:
            assert refusal is not None  # noqa: S101 - a text has segments
            raise refusal
        pcm = joiner.finish(last.silence or 0.0)
        if piece := await self._encode(lambda: encoder.feed(pcm) + encoder.finish(), pcm):
            yield piece
        self._on_end(self._result())

    async def _hold_back(self) -> None:
        """Wait until the stream can play without a gap, if that is not too long. Raises ChorusError.

        Not longer than until as much is made ahead as may be, either.
        """
        clock = asyncio.get_running_loop().time
        began = now = clock()
        while now < self._latest_start and not self._buffer.full:
            start = min(self._latest_start, self._earliest_start(now))
            if start <= now:
                break
            await self._buffer.changed(start - now)
            now = clock()
        self._metrics.record_stream_delay(now - began)

    def _earliest_start(self, now: float) -> float:
        unfinished = sum(not segment.finished for segment in self._progress)
        return earliest_start(self._progress, self._pace(unfinished), now, self._speed)

    @staticmethod
    def _seconds_of(segments: Sequence[SegmentProgress]) -> float:
        return sum(segment.seconds for segment in segments)

    async def _samples(self, taken: bytes | CachedResult) -> bytes:
        """The PCM of a piece, or what is left of a finished segment behind its pieces."""
        if isinstance(taken, bytes):
            samples = taken
        else:
            self._results.append(replace(taken, data=MemoryBuffer(b"")))
            start = self._position.size
            samples = await self._held.read(taken.data, start, len(taken.data) - start)
        self._position.size += len(samples)
        return samples

    async def _encode(self, work: Callable[[], bytes], pcm: bytes) -> bytes:
        seconds = duration(len(pcm), self.sample_rate)
        begun = self.seconds > 0
        piece = await self._encoders.encode_piece(work, seconds, self.format, self._speed, self._place, begun=begun)
        played = seconds / self._speed
        self.seconds += played
        if played:  # a file's header is not heard
            self._metrics.record_stream_gap(self._clock.sent(played, asyncio.get_running_loop().time()))
        return piece

    def _result(self) -> CachedResult:
        """All that was spoken, without its audio."""
        return joined_result(MemoryBuffer(b""), self.seconds * self._speed, self._results)
