"""Threads for work that blocks: each thing that may be slow has a pool of its own, so that nothing else waits for it.

The threads are daemons: a process that ends does not wait for a call that hangs, on a dead disk for example.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

ITEMS_AT_A_TIME = 20
"""Items that a thread works on before it rests: a millisecond or two, for the lines and jobs of a batch."""
REST_SECONDS = 0.001
"""Pause in which the event loop wakes up and gets the interpreter."""

MAX_WAITING = 1000
"""Calls that may wait for a thread of one pool, if its owner sets no other limit."""


class PoolFullError(OSError):
    """Too many calls wait for the pool already; the message names it."""


class Run(Protocol):
    """Calls work that may take long: in a thread, or at once."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """The result of `work`."""


async def run_at_once(work: Callable[[], T]) -> T:
    """The result of work that takes no longer than the event loop can wait."""
    return work()


def with_rests(items: Iterable[T]) -> Iterator[T]:
    """The items, for work on thousands of them in a thread, which rests now and then.

    The event loop asks for the interpreter many times for one request. A thread that works on gives it back each time
    late, by what it takes to wake the loop's thread on a core that others use, too.
    """
    for number, item in enumerate(items, start=1):
        yield item
        if number % ITEMS_AT_A_TIME == 0:
            time.sleep(REST_SECONDS)


class ThreadPool:
    """Up to `threads` threads, each started when it is first needed. Thread-safe."""

    def __init__(self, name: str, threads: int, *, max_waiting: int = MAX_WAITING) -> None:
        self._name = name
        self._limit = threads
        self._max_waiting = max_waiting
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False

    async def run(self, work: Callable[[], T], *, begun: bool = False) -> T:
        """The result of `work`, called in a thread. Raises PoolFullError, and whatever `work` raises.

        Work of a request that has `begun` is not refused because others wait. Cancelling this takes work back that no
        thread has begun; what one has begun goes on.
        """
        return await asyncio.wrap_future(self._submit(work, begun=begun))

    def start(self, work: Callable[[], object]) -> None:
        """Call `work` in a thread and wait for nothing: an error is logged, and work for a full pool is dropped."""

        def logged() -> None:
            try:
                work()
            except Exception:
                log.exception("work of the pool %s failed", self._name)

        try:
            self._submit(logged)
        except PoolFullError as error:
            log.warning("%s", error)

    def close(self) -> None:
        """Refuse further calls, and end the threads as they become idle. Does not wait for them."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._calls.put(None)

    def _submit(self, work: Callable[[], T], *, begun: bool = False) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise PoolFullError(f"the pool {self._name} is closed")
            if self._calls.qsize() >= self._max_waiting and not begun:
                raise PoolFullError(f"{self._max_waiting} calls wait for the pool {self._name} already")
            self._calls.put((future, work))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, work = call
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            # A thread that waits must not keep the last call's objects alive, which may be megabytes.
            del call, future, work
            self._idle.release()
