"""The encoder queue, and the threads that encodes run in.

Callers take turns, as they do in front of the workers, and interactive encodes go before batch ones. A long encode
gives its place up after SLICE_SECONDS if others wait, and goes on when its caller's turn has come again: its thread
sleeps meanwhile. So a short encode waits for a slice of each other caller, not for the longest encode of any.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import IO, TypeVar

from balancer.audio.buffers import AudioBuffer
from balancer.audio.encoder import encode, is_pcm_copy
from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import HeldAudio
from balancer.audio.pcm import duration
from balancer.errors import QueueFullError
from balancer.runtime.thread_pool import ThreadPool
from balancer.scheduling.fair_queue import FairQueue
from balancer.scheduling.priority import Priority
from balancer.scheduling.queued_utterance import AttemptId, QueuedUtterance, Terms
from balancer.scheduling.scheduler import BATCH_TURN
from balancer.speech.place import Place

T = TypeVar("T")

SLICE_SECONDS = 0.25
"""Time after which a running encode lets another one go before it."""
MAX_STARTED = 32
"""Encodes that have begun and not ended, those that sleep included: each takes a thread, and a few MiB of memory."""
MAX_THREADS = 8
"""Encodes at once, if no setting says otherwise: more are of little use to the one process that sends the audio."""
SPEED = 100.0
"""Rough seconds of audio that are encoded in a second, for the order of the queue only."""
RETRY_SECONDS = 5.0


class _Encode:
    """One encode, from its arrival until its thread is done with it."""

    def __init__(self, queued: QueuedUtterance, seconds: float, arrived: float) -> None:
        self.queued = queued
        self.seconds = seconds
        """Expected duration."""
        self.arrived = arrived
        self.may_start: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = False
        self.slice_began = 0.0
        self.should_pause = threading.Event()
        self.may_go_on = threading.Event()
        self.abandoned = threading.Event()


class EncoderPool:
    """Encodes up to `threads` files at a time; `limit` bounds the queue of each priority."""

    def __init__(self, held: HeldAudio, *, limit: int, threads: int | None = None) -> None:
        self._held = held
        self._limit = limit
        self._threads = threads or max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)) - 1))
        self._pool = ThreadPool("encoders", MAX_STARTED)
        self._queues = {priority: FairQueue(1.0) for priority in Priority}
        self._encodes: dict[AttemptId, _Encode] = {}
        self._running: dict[AttemptId, _Encode] = {}
        self._started = 0
        self._since_batch = 0
        self._ids = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def depth(self) -> int:
        """Number of encodes that wait."""
        return sum(map(len, self._queues.values()))

    @property
    def running(self) -> int:
        """Number of encodes that run."""
        return len(self._running)

    async def encode(
        self, pcm: AudioBuffer, sample_rate: int, audio_format: AudioFormat, speed: float, place: Place
    ) -> AudioBuffer:
        """The file, held for the caller of `place`. Cancelling this ends the encode, waiting or running.

        Raises QueueFullError, MemoryFullError.
        """
        seconds = duration(len(pcm), sample_rate) / min(1.0, speed)

        def write(job: _Encode, loop: asyncio.AbstractEventLoop) -> AudioBuffer:
            fill = partial(self._encode, job, pcm, sample_rate, audio_format, speed, loop)
            return self._held.write(place.terms.caller, fill)

        return await self._in_turn(write, seconds, place)

    async def encode_piece(
        self,
        work: Callable[[], bytes],
        seconds: float,
        audio_format: AudioFormat,
        speed: float,
        place: Place,
        *,
        begun: bool,
    ) -> bytes:
        """The result of `work`, which encodes so many seconds of a stream's audio.

        It is called in a thread, unless the format only copies the PCM. Cancelling this leaves it running.

        Raises QueueFullError, unless the stream that the audio belongs to has begun.
        """
        if is_pcm_copy(audio_format, speed):
            return work()
        return await self._in_turn(lambda _, __: work(), seconds / min(1.0, speed), place, begun=begun)

    async def _in_turn(
        self,
        turn: Callable[[_Encode, asyncio.AbstractEventLoop], T],
        audio_seconds: float,
        place: Place,
        *,
        begun: bool = False,
    ) -> T:
        """The result of `turn`, which is called in a thread once its turn has come."""
        terms = replace(place.terms, deadline=None)  # whoever calls this ends it at the deadline
        queue = self._queues[terms.priority]
        if len(queue) >= self._limit and not begun:
            raise QueueFullError(f"{len(queue)} files wait to be encoded; try again later", retry_after=RETRY_SECONDS)
        seconds = audio_seconds / SPEED
        job = _Encode(QueuedUtterance(AttemptId(str(next(self._ids))), seconds, terms), seconds, self._now())
        self._encodes[job.queued.attempt_id] = job
        self._add(job)
        self._fill()
        work: asyncio.Future[T] | None = None
        try:
            with place.followed_by(partial(self._improve, job)):
                await job.may_start
            loop = asyncio.get_running_loop()
            work = asyncio.ensure_future(self._pool.run(lambda: turn(job, loop)))
            work.add_done_callback(partial(self._ended, job))
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            job.abandoned.set()
            job.may_go_on.set()
            if work is None:
                self._started -= job.started
                self._remove(job)
            raise

    def close(self) -> None:
        """Abandon every encode, and end the threads; does not wait for them."""
        for job in self._encodes.values():
            job.abandoned.set()
            job.may_go_on.set()
        self._pool.close()

    # In a thread.

    def _encode(
        self,
        job: _Encode,
        pcm: AudioBuffer,
        sample_rate: int,
        audio_format: AudioFormat,
        speed: float,
        loop: asyncio.AbstractEventLoop,
        output: IO[bytes],
    ) -> None:
        def abandoned() -> bool:
            if job.should_pause.is_set() and not job.abandoned.is_set():
                job.should_pause.clear()
                loop.call_soon_threadsafe(self._pause, job)
                job.may_go_on.wait()
                job.may_go_on.clear()
            return job.abandoned.is_set()

        encode(pcm, sample_rate, audio_format, speed, output, abandoned)

    # The queue.

    def _add(self, job: _Encode) -> None:
        # One that has begun keeps the lowest rank of its caller, so that a caller's encodes end one after the other.
        duration = 0.0 if job.started else job.seconds
        self._queues[job.queued.terms.priority].add(job.queued, duration=duration, now=job.arrived)

    def _improve(self, job: _Encode, terms: Terms) -> None:
        """Give an encode that waits the place of a request that waits for it, too, if that is better."""
        current, better = self._queues[job.queued.terms.priority], self._queues[terms.priority]
        attempt_id = job.queued.attempt_id
        if attempt_id not in current:  # it has just been let go
            return
        if terms.priority.precedes(job.queued.terms.priority) and len(better) < self._limit:
            current.remove(attempt_id)
            job.queued = QueuedUtterance(attempt_id, job.seconds, replace(terms, deadline=None))
            self._add(job)
            self._fill()

    def _fill(self) -> None:
        """Let encodes run, as many as there are places for; ask running ones to pause if others wait."""
        while len(self._running) < self._threads and (job := self._next()) is not None:
            self._running[job.queued.attempt_id] = job
            job.slice_began = self._now()
            job.should_pause.clear()
            if job.started:
                job.may_go_on.set()
            else:
                job.started = True
                self._started += 1
                if not job.may_start.done():  # it may have been cancelled just now
                    job.may_start.set_result(None)
        self._ask_to_pause()

    def _next(self) -> _Encode | None:
        """Take the next encode out of the queue; None if none may run."""
        interactive, batch = self._queues[Priority.INTERACTIVE], self._queues[Priority.BATCH]
        queues = [batch, interactive] if self._since_batch >= BATCH_TURN - 1 else [interactive, batch]
        for queue in queues:
            # Without a thread for another one, only those that have begun go on.
            without = self._callers_of_new(queue) if self._started >= MAX_STARTED else ()
            if queue.waits(without=without):
                self._since_batch = 0 if queue is batch else self._since_batch + 1
                return self._encodes[queue.pop(self._now(), without=without).attempt_id]
        return None

    def _callers_of_new(self, queue: FairQueue) -> set[str]:
        """The callers in a queue none of whose encodes has begun."""
        jobs = [self._encodes[attempt_id] for attempt_id in queue]
        paused = {job.queued.terms.caller for job in jobs if job.started}
        return {job.queued.terms.caller for job in jobs} - paused

    def _ask_to_pause(self) -> None:
        """Ask the running encodes whose slice is over, and look again when the next slice is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, due = self._now(), []
        for job in self._running.values():
            if self._yields(job) and not job.should_pause.is_set():
                ends = job.slice_began + SLICE_SECONDS
                if ends <= now:
                    job.should_pause.set()
                else:
                    due.append(ends)
        if due:
            self._timer = asyncio.get_running_loop().call_at(min(due), self._ask_to_pause)

    def _yields(self, job: _Encode) -> bool:
        """Whether an encode waits that this one is to let go first: its caller's own others are not among them."""
        terms = job.queued.terms
        if terms.priority is Priority.BATCH and self._queues[Priority.INTERACTIVE]:
            return True
        return self._queues[terms.priority].waits(without=[terms.caller])

    def _pause(self, job: _Encode) -> None:
        """Put a running encode, whose thread sleeps, back into the queue."""
        if self._running.pop(job.queued.attempt_id, None) is not None:
            self._add(job)
        self._fill()

    def _ended(self, job: _Encode, _: object) -> None:
        """The thread is done with an encode."""
        self._started -= 1
        self._remove(job)

    def _remove(self, job: _Encode) -> None:
        attempt_id = job.queued.attempt_id
        self._encodes.pop(attempt_id, None)
        self._running.pop(attempt_id, None)
        for queue in self._queues.values():
            queue.remove(attempt_id)
        self._fill()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
