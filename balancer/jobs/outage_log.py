"""The log of a job store that cannot be used. Clients are told that it cannot, and not why: the cause names folders."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from balancer.errors import JobsUnavailableError
from balancer.jobs.store import JobStoreError

log = logging.getLogger(__name__)

QUIET_SECONDS = 60.0
"""An outage is over after so long without a failure; the next failure is logged again."""
RETRY_SECONDS = 5.0
"""Retry-After of a refused request."""


class OutageLog:
    """Logs the cause of an outage once. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_failure: float | None = None

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises JobsUnavailableError where the block raises JobStoreError."""
        try:
            yield
        except JobStoreError as error:
            raise self.unavailable(error) from error

    def unavailable(self, error: JobStoreError | OSError) -> JobsUnavailableError:
        """The error for clients while the store cannot be used; logs `error` if it is the first of an outage."""
        now = self._clock()
        if self._last_failure is None or now - self._last_failure >= QUIET_SECONDS:
            log.error("requests for jobs are refused: %s", error)
        self._last_failure = now
        return JobsUnavailableError(
            "jobs cannot be accepted or looked up at the moment; accepted jobs are not lost", retry_after=RETRY_SECONDS
        )
