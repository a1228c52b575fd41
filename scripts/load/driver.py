"""Sends the requests of a load test within its bounds, in a closed or an open loop, and records each."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from scripts.load.client import Answer
from scripts.load.texts import Text


@dataclass(frozen=True)
class Bounds:
    """Nothing more is sent after so many requests or so many seconds, whichever comes first."""

    requests: int
    seconds: float


@dataclass(frozen=True)
class Record:
    """One request and what became of it; times in seconds."""

    intended: float
    """When it was due, since the start of the run."""
    lag: float
    """How late this client itself was in sending it."""
    latency: float
    """From when it was due until the whole answer was here, or it had failed."""
    characters: int
    length: str | None
    repeated: bool
    error: str | None
    audio_seconds: float | None


class Driver:
    """One run. `records` grows in the order of the answers, `on_record` is told of each."""

    def __init__(
        self,
        speak: Callable[[str], Awaitable[Answer]],
        texts: Iterator[Text],
        bounds: Bounds,
        on_record: Callable[[Record], None],
    ) -> None:
        self.records: list[Record] = []
        self.sent = 0
        self._speak = speak
        self._texts = texts
        self._bounds = bounds
        self._on_record = on_record
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.seconds = 0.0
        """How long the run took, once it is over."""
        self._start = 0.0

    @property
    def outstanding(self) -> int:
        """Requests sent that have not been answered."""
        return self.sent - len(self.records)

    @property
    def stopping(self) -> bool:
        """Whether nothing more will be sent."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Send nothing more; the second call also abandons what is outstanding."""
        if self.stopping:
            for task in self._tasks:
                task.cancel()
        self._stopping.set()

    async def closed(self, clients: int) -> None:
        """Let each of so many clients send its next request when its last is answered."""
        async with self._run() as group:
            for _ in range(clients):
                self._spawn(group, self._client())

    async def open(self, arrivals: Iterable[float]) -> None:
        """Start each request when it is due, however many are outstanding.

        `arrivals` are ascending times in seconds since the start. Latency counts from them: what falls due
        while the server stalls shows all of its wait.
        """
        async with self._run() as group:
            for due in arrivals:
                if not (self._within_bounds(due) and await self._reached(due)):
                    break
                self._spawn(group, self._request(self._take(), due))

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
        while self._within_bounds(now := self._now()) and not self.stopping:
            await self._request(self._take(), now)

    def _within_bounds(self, at: float) -> bool:
        return self.sent < self._bounds.requests and at < self._bounds.seconds

    async def _reached(self, due: float) -> bool:
        """Wait until a time since the start; False when the stop came first."""
        if self.stopping:
            return False
        try:
            # The loop's clock is time.monotonic. A time gone by still lets the other tasks run once.
            async with asyncio.timeout_at(self._start + due):
                await self._stopping.wait()
        except TimeoutError:
            return True
        return False

    def _take(self) -> Text:
        self.sent += 1
        return next(self._texts)

    async def _request(self, text: Text, due: float) -> None:
        lag = self._now() - due
        answer = await self._speak(text.content)
        record = Record(
            intended=due,
            lag=lag,
            latency=self._now() - due,
            characters=len(text.content),
            length=text.length,
            repeated=text.repeated,
            error=answer.error,
            audio_seconds=answer.audio_seconds,
        )
        self.records.append(record)
        self._on_record(record)

    def _spawn(self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
