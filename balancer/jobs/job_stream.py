"""The audio of a job that is listened to while the job is made: its kept segments in order, encoded as they come.

A listener takes each segment from the store when it is to be sent, so that the job never waits for it, and is told by
the feed of event streams when there is another. The segments are gone once the job is done. The rest then comes from
the job's file, which has the very bytes of the stream behind its header.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

from balancer.audio.buffers import PIECE_BYTES, AudioBuffer, FileBuffer, MemoryBuffer
from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import HeldAudio
from balancer.audio.joining import Joiner
from balancer.audio.pcm import duration
from balancer.audio.stream_encoder import MAX_HEADER_BYTES, StreamEncoder, longer_header
from balancer.errors import JobNotDoneError, JobNotFoundError, JobsUnavailableError
from balancer.jobs.feed import Watcher
from balancer.jobs.job import Job, JobState
from balancer.jobs.job_request import request_of
from balancer.jobs.outage_log import OutageLog
from balancer.jobs.store import JobStore, JobStoreError
from balancer.metrics import Metrics
from balancer.requests.speech_request import RequestContext
from balancer.requests.validation import RequestValidator
from balancer.runtime.thread_pool import ThreadPool
from balancer.scheduling.queued_utterance import Terms
from balancer.settings.speech import PauseSettings
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from balancer.speech.segment_requests import pause_before
from balancer.speech.service import SpeechService
from balancer.text.segments import Segment
from worker.contract import SAMPLE_BYTES

RETRY_SECONDS = 0.25
"""Pause before a segment is read again that could not be read, or was counted and is still being written."""
PIECE_SECONDS = 1
"""Audio that is encoded at once, so that a listener who does not read holds little more."""
FILE_THREADS = 2


class JobStreams:
    """Opens the streams of jobs. `sample_rate` is the engine's, in Hz."""

    def __init__(
        self,
        store: JobStore,
        speech: SpeechService,
        validator: RequestValidator,
        held: HeldAudio,
        encoders: EncoderPool,
        metrics: Metrics,
        *,
        sample_rate: int,
        pauses: PauseSettings,
        outage: OutageLog,
    ) -> None:
        self.store = store
        self.held = held
        self.encoders = encoders
        self.metrics = metrics
        self.sample_rate = sample_rate
        self.pauses = pauses
        self.outage = outage
        self.pool = ThreadPool("job-listeners", FILE_THREADS)
        self._speech = speech
        self._validator = validator

    def close(self) -> None:
        """End the threads; does not wait for them."""
        self.pool.close()

    async def open(self, job: Job, watcher: Watcher, listener: str) -> JobStream:
        """The stream of a job that is playable, which `watcher` watches; to be closed. `listener` is a caller's id.

        Its first piece is there. Raises ChorusError.
        """
        request = await request_of(job, self._validator)
        context = RequestContext(job.id, job.caller, job.caller_id, asyncio.get_running_loop().time())
        segments, segmentation = await self._speech.segmentation(request, context)
        if segmentation != job.segmentation:
            raise JobNotDoneError("the job is spoken with other settings than this server has; wait until it is done")
        stream = JobStream(self, job, watcher, segments, request.speed, listener)
        try:
            await stream.begin()
        except BaseException:
            await stream.aclose()
            raise
        return stream


class JobStream:
    """An asynchronous iterator of the pieces of one job's audio, for one listener."""

    def __init__(
        self,
        streams: JobStreams,
        job: Job,
        watcher: Watcher,
        segments: Sequence[Segment],
        speed: float,
        listener: str,
    ) -> None:
        self.format = AudioFormat(job.format)
        self.seconds = 0.0
        """Length of the audio that was encoded for the listener, after the tempo change."""
        self._streams = streams
        self._job = job
        """The job as it was last seen."""
        self._segmentation = job.segmentation
        """The segmentation of the segments that are sent."""
        self._watcher = watcher
        self._segments = segments
        self._speed = speed
        self._listener = listener
        self._place = Place(Terms(listener))
        self._encoder = StreamEncoder(streams.sample_rate, self.format, speed, short_pages=False)
        self._sent = 0
        """Bytes."""
        self._digest = sha256()
        """Digest of the bytes that were sent behind the first MAX_HEADER_BYTES."""
        self._pieces = self._make()
        self._first: bytes | None = None
        self._open = False

    async def begin(self) -> None:
        """Wait for the first piece. Raises ChorusError: nothing has been sent by then."""
        self._open = True
        self._streams.metrics.streams.inc()
        self._first = await anext(self._pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises ChorusError, among them JobNotDoneError where the job has failed or was cancelled."""
        if self._first is not None:
            piece, self._first = self._first, None
        else:
            piece = await anext(self._pieces)
        return piece

    async def aclose(self) -> None:
        """End the stream."""
        if self._open:
            self._open = False
            self._streams.metrics.streams.dec()
        await self._pieces.aclose()

    async def _make(self) -> AsyncGenerator[bytes, None]:
        joiner = Joiner(self._streams.sample_rate)
        before: Segment | None = None
        for number, segment in enumerate(self._segments):
            pcm = await self._segment(number)
            if pcm is None:
                async with aclosing(self._rest()) as rest:
                    async for piece in rest:
                        yield piece
                return
            if not pcm:  # it cannot be spoken
                continue
            pause = pause_before(segment, before, self._streams.pauses)
            before = segment
            async with aclosing(self._encoded(joiner.add(pcm, pause))) as pieces:
                async for piece in pieces:
                    yield piece
        if before is None:
            raise JobNotDoneError("nothing in the job's text can be spoken")
        async with aclosing(self._encoded(joiner.finish(before.silence or 0.0))) as pieces:
            async for piece in pieces:
                yield piece
        if piece := self._counted(await self._encode(self._encoder.finish, 0.0)):
            yield piece

    async def _segment(self, number: int) -> bytes | None:
        """The PCM of a segment, once it is kept; empty: it cannot be spoken. None if the job is done by then."""
        while self._job.state is not JobState.DONE:
            if self._job.state.final:
                raise JobNotDoneError(f"the job is {self._job.state.value}")
            if self._job.segmentation not in ("", self._segmentation):
                raise JobNotDoneError("the job was begun anew")
            if number >= self._job.playable_segments or not self._job.segmentation:
                await self._change()
                continue
            with suppress(JobStoreError):
                pcm = await self._streams.store.segments.read(self._job, number)
                if pcm is not None:
                    return pcm
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._change()
        return None

    async def _change(self) -> None:
        """Wait until the job has changed; a store that cannot be used is waited for. Raises JobNotFoundError."""
        with suppress(JobsUnavailableError):
            self._job = (await self._watcher.change()).job

    async def _encoded(self, pcm: bytes) -> AsyncGenerator[bytes, None]:
        held = self._streams.held
        audio = await held.hold(MemoryBuffer(pcm), self._listener)
        del pcm
        size = PIECE_SECONDS * self._streams.sample_rate * SAMPLE_BYTES
        for start in range(0, max(1, len(audio)), size):
            samples = await held.read(audio, start, size)
            seconds = duration(len(samples), self._streams.sample_rate)
            if piece := self._counted(await self._encode(partial(self._encoder.feed, samples), seconds)):
                yield piece

    async def _encode(self, work: Callable[[], bytes], seconds: float) -> bytes:
        self.seconds += seconds / self._speed
        encoders, begun = self._streams.encoders, self._sent > 0
        return await encoders.encode_piece(work, seconds, self.format, self._speed, self._place, begun=begun)

    def _counted(self, piece: bytes) -> bytes:
        self._digest.update(piece[max(0, MAX_HEADER_BYTES - self._sent) :])
        self._sent += len(piece)
        return piece

    async def _rest(self) -> AsyncGenerator[bytes, None]:
        """The rest of the file of the job, which is done. Raises JobNotDoneError if its beginning was not sent."""
        pool = self._streams.pool
        try:
            file = await self._streams.store.audio(self._job)
            if file is None:
                raise JobNotFoundError("the audio of the job no longer exists")
            audio = await pool.run(partial(_opened, file))
            start = self._sent
            if self._sent:
                longer = longer_header(self._streams.sample_rate, self.format, self._speed)
                start += longer
                if await pool.run(partial(_digest, audio, MAX_HEADER_BYTES + longer, start)) != self._digest.digest():
                    raise JobNotDoneError("the job was made anew meanwhile")
            while piece := await pool.run(partial(audio.read, start, PIECE_BYTES)):
                yield piece
                start += len(piece)
        except FileNotFoundError as error:
            raise JobNotFoundError("the audio of the job no longer exists") from error
        except (JobStoreError, OSError) as error:
            raise self._streams.outage.unavailable(error) from error


def _opened(file: Path) -> AudioBuffer:
    with file.open("rb") as opened:
        return FileBuffer(os.dup(opened.fileno()), 0, os.fstat(opened.fileno()).st_size)


def _digest(audio: AudioBuffer, start: int, end: int) -> bytes:
    digest = sha256()
    for position in range(start, end, PIECE_BYTES):
        digest.update(audio.read(position, min(PIECE_BYTES, end - position)))
    return digest.digest()
