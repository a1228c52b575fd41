"""Sends the requests of a load test within its limits, in a closed or an open loop, and records each."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from balancer.load.client import SegmentCount, SpeechResult
from balancer.load.texts import Text


@dataclass(frozen=True)
class LoadLimits:
    """No request is sent after this many requests or seconds, whichever comes first."""

    requests: int
    seconds: float


@dataclass(frozen=True)
class RequestRecord:
    """One request and its result. Times are in seconds."""

    intended: float
    """Seconds from the start of the run until it was due; in a closed loop, until it was sent."""
    lag: float
    """Delay after that time with which this client sent it."""
    latency: float
    """From the time it was due until the complete answer was received or the request failed."""
    characters: int
    length: str | None
    repeated: bool
    error: str | None
    audio_seconds: float | None
    segments: SegmentCount | None = None
    first_sound: float | None = None
    """From the time it was due until the first audio; None if it was not streamed, or has failed."""
    gaps: int = 0
    """Times that a listener of the stream had nothing to play."""


class Driver:
    """One run. `records` has the requests in the order of their answers; `on_record` is called with each."""

    def __init__(
        self,
        synthesize: Callable[[str], Awaitable[SpeechResult]],
        texts: Iterator[Text],
        limits: LoadLimits,
        on_record: Callable[[RequestRecord], None],
    ) -> None:
        self.records: list[RequestRecord] = []
        self.sent = 0
        self._synthesize = synthesize
        self._texts = texts
        self._limits = limits
        self._on_record = on_record
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.seconds = 0.0
        """The length of the run, once it is over."""
        self._start = 0.0
        self._due: dict[int, float] = {}
        """The due times of the outstanding requests, by their numbers."""

    @property
    def outstanding(self) -> int:
        """The number of requests without an answer so far."""
        return self.sent - len(self.records)

    def ages(self) -> list[float]:
        """For how long each outstanding request has been due, in seconds: at least that is its latency."""
        now = self._now()
        return [now - due for due in self._due.values()]

    @property
    def stopping(self) -> bool:
        """Whether `stop` has been called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Send no more requests; the second call also abandons the outstanding ones."""
        if self.stopping:
            for task in self._tasks:
                task.cancel()
        self._stopping.set()

    async def closed(self, clients: int) -> None:
        """Run a closed loop: each client sends its next request when its last one is answered."""
        async with self._run() as group:
            for _ in range(clients):
                self._spawn(group, self._client())

    async def open(self, arrivals: Iterable[float]) -> None:
        """Run an open loop: each request is sent when it is due, however many are outstanding.

        `arrivals` are ascending times in seconds since the start. Latency counts from them, so that it includes the
        wait of requests that are due while the server stalls.
        """
        async with self._run() as group:
            for due in arrivals:
                if not (self._within_limits(due) and await self._wait_until(due)):
                    break
                self._spawn(group, self._request(self._next_text(), due, self.sent))

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[asyncio.TaskGroup]:
        self._start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            yield group
        self.seconds = self._now()

    def _now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    async def _client(self) -> None:
        while self._within_limits(now := self._now()) and not self.stopping:
            await self._request(self._next_text(), now, self.sent)

    def _within_limits(self, at: float) -> bool:
        return self.sent < self._limits.requests and at < self._limits.seconds

    async def _wait_until(self, due: float) -> bool:
        """Wait until a time since the start; False if the run is stopped before."""
        if self.stopping:
            return False
        try:
            # The event loop's clock is time.monotonic. Even if the time has passed, other tasks run once.
            async with asyncio.timeout_at(self._start + due):
                await self._stopping.wait()
        except TimeoutError:
            return True
        return False

    def _next_text(self) -> Text:
        self.sent += 1
        return next(self._texts)

    async def _request(self, text: Text, due: float, number: int) -> None:
        self._due[number] = due
        lag = self._now() - due
        answer = await self._synthesize(text.content)
        del self._due[number]
        record = RequestRecord(
            intended=due,
            lag=lag,
            latency=self._now() - due,
            characters=len(text.content),
            length=text.length,
            repeated=text.repeated,
            error=answer.error,
            audio_seconds=answer.audio_seconds,
            segments=answer.segments,
            first_sound=None if answer.first_sound is None else lag + answer.first_sound,
            gaps=answer.gaps,
        )
        self.records.append(record)
        self._on_record(record)

    def _spawn(self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
