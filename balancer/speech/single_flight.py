"""Single flight: concurrent calls with the same key share one execution.

The execution is cancelled only when its last caller has been cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Generic, TypeVar

from balancer.dispatch.early_audio import EarlyAudio
from balancer.speech.place import Place

T = TypeVar("T")


class _Flight(Generic[T]):
    """One running execution, and the number of callers that wait for it."""

    def __init__(self, place: Place | None, early: EarlyAudio | None) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.place = place
        self.early = early
        self.callers = 0
        self.task: asyncio.Task[None] | None = None


class SingleFlight(Generic[T]):
    """The running executions, by key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether an execution with this key is running."""
        return key in self._flights

    async def do(
        self,
        key: Hashable,
        work: Callable[[], Awaitable[T]],
        after: Callable[[T], Awaitable[None]] | None = None,
        place: Place | None = None,
        early: EarlyAudio | None = None,
    ) -> tuple[T, bool]:
        """The result of `work`, and whether it came from an execution that another caller started.

        Every caller gets the result of `work`, or the exception that it raises. `after` runs with the result once the
        callers have it; a call made meanwhile still gets that result. Cancelling one caller does not cancel the
        execution while another waits for it. `place` is where the caller's own execution would wait: an execution that
        is shared waits in the best place of its callers'. `early` is what `work` hands on of its result meanwhile: a
        caller that joins gets what there is, then the rest.
        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight(place, early)
            flight.task = asyncio.create_task(self._run(key, flight, work, after))
        flight.callers += 1
        try:
            with _joining(flight, place, early) if joined else nullcontext():
                return await asyncio.shield(flight.result), joined
        finally:
            flight.callers -= 1
            if not flight.callers and not flight.result.done():
                self._remove(key, flight)
                assert flight.task is not None  # noqa: S101 - set with the flight
                flight.task.cancel()
            # An exception holds this frame, and the flight the exception: audio would stay until the garbage collector.
            del flight

    async def _run(
        self,
        key: Hashable,
        flight: _Flight[T],
        work: Callable[[], Awaitable[T]],
        after: Callable[[T], Awaitable[None]] | None,
    ) -> None:
        try:
            try:
                result = await work()
            except asyncio.CancelledError:
                flight.result.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - re-raised in every caller
                flight.result.set_exception(error)
                flight.result.exception()  # marks it as retrieved: the last caller may just have been cancelled
                return
            flight.result.set_result(result)
            if after is not None:
                await after(result)
        finally:
            self._remove(key, flight)
            del flight  # as above

    def _remove(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


@contextmanager
def _joining(flight: _Flight[T], place: Place | None, early: EarlyAudio | None) -> Iterator[None]:
    """Within the block, the execution's place is at least as good as the caller's, who gets what it hands on."""
    with ExitStack() as joined:
        if flight.early is not None and early is not None:
            joined.enter_context(flight.early.followed_by(early.add))
        if flight.place is not None and place is not None:
            flight.place.improve(place.terms)
            joined.enter_context(place.followed_by(flight.place.improve))
        yield
