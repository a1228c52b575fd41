"""A thread for the files of one folder, so that a folder that does not answer holds up nothing else."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

log = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
T = TypeVar("T")


class FileThread:
    """Runs functions one after the other in a daemon thread, which starts with the first and does not delay an exit.

    With `interval`, `periodic` is called each so many seconds from then on.
    """

    def __init__(
        self, name: str, periodic: Callable[[], None] = lambda: None, *, interval: float | None = None
    ) -> None:
        self._name = name
        self._periodic = periodic
        self._interval = interval
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], object]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._started:
            return
        with self._lock:
            if not self._started:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
                self._started = True

    def submit(self, function: Callable[Arguments, T], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Future[T]:
        """Have the thread call a function. May be called from any thread."""
        self.start()
        future: Future[T] = Future()
        self._calls.put((future, lambda: function(*args, **kwargs)))
        return future

    async def run(self, function: Callable[Arguments, T], *args: Arguments.args, **kwargs: Arguments.kwargs) -> T:
        """The result of a function that the thread calls. A call that is cancelled while it waits is left out."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def _run(self) -> None:
        due = None if self._interval is None else time.monotonic() + self._interval
        while True:
            try:
                timeout = None if due is None else max(0.0, due - time.monotonic())
                future, call = self._calls.get(timeout=timeout)
            except queue.Empty:
                due = time.monotonic() + (self._interval or 0.0)
                future, call = Future(), self._periodic
                future.add_done_callback(self._report)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                    future.set_exception(error)

    def _report(self, periodic: Future[Any]) -> None:
        if (error := periodic.exception()) is not None:
            log.error("thread %s: the periodic call failed", self._name, exc_info=error)
