"""Work that several ask for at once is done once, and is ended only when the last of them has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Flight(Generic[T]):
    """One piece of work under way, and how many wait for it."""

    def __init__(self) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None


class SingleFlight(Generic[T]):
    """Work under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is such work to join."""
        return key in self._flights

    async def do(
        self, key: Hashable, work: Callable[[], Awaitable[T]], after: Callable[[T], Awaitable[None]] | None = None
    ) -> tuple[T, bool]:
        """The result of `work`, and whether somebody else had begun it.

        `after` is done with the result once everyone has it; who comes meanwhile still gets it. What `work` raises,
        everyone gets. Cancelling a caller leaves the work alone while another one waits for it.
        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(self._run(key, flight, work, after))
        flight.listeners += 1
        try:
            return await asyncio.shield(flight.result), joined
        finally:
            flight.listeners -= 1
            if not flight.listeners and not flight.result.done():
                self._forget(key, flight)
                assert flight.task is not None  # noqa: S101 - set with the flight
                flight.task.cancel()

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
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait
                flight.result.set_exception(error)
                flight.result.exception()  # not to be complained of where the last of them has just left
                return
            flight.result.set_result(result)
            if after is not None:
                await after(result)
        finally:
            self._forget(key, flight)

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
