"""The audio cache as the speech service uses it: a store that fails or hangs does not fail a request or hold it up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from math import inf

from balancer.audio.buffers import AudioBuffer
from balancer.cache.store import AudioStore, CachedAudio, StoreError
from balancer.metrics import Metrics

log = logging.getLogger(__name__)

MAX_READ_SECONDS = 2.0
"""A read that takes longer counts as a cache miss."""
MAX_WRITE_SECONDS = 10.0
"""A write that takes longer is given up: it holds its audio in memory."""
SUSPENSION_SECONDS = 5.0
"""Time after such a read or write in which the store is not used, as the next request would only wait, too."""
LOG_INTERVAL_SECONDS = 30.0
"""Minimum pause between two log lines about a failing store: otherwise each request would write one."""


class BestEffortCache:
    """A cache over a store, whose errors it counts and logs. Without a store it is always empty."""

    def __init__(self, store: AudioStore | None, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._logged: float | None = None
        self._suspended_until = -inf

    async def get(self, cache_key: str) -> CachedAudio | None:
        """The cached audio; None on a cache miss, or if the store fails or takes longer than MAX_READ_SECONDS."""
        if self._store is None or self._clock() < self._suspended_until:
            return None
        try:
            async with asyncio.timeout(MAX_READ_SECONDS):
                return await self._store.get(cache_key)
        except StoreError as error:
            self._record_error(error)
        except TimeoutError:
            self._suspend(f"a read took longer than {MAX_READ_SECONDS:g} s")
        return None

    async def put(self, cache_key: str, data: AudioBuffer, seconds: float, caller: str) -> None:
        """Store audio of this caller that lasts `seconds` at speed 1, if the store works."""
        if self._store is None or self._clock() < self._suspended_until:
            return
        try:
            async with asyncio.timeout(MAX_WRITE_SECONDS):
                await self._store.put(cache_key, CachedAudio(data, seconds, time.time()), caller)
        except StoreError as error:
            self._record_error(error)
        except TimeoutError:
            self._suspend(f"a write took longer than {MAX_WRITE_SECONDS:g} s")

    def _suspend(self, reason: str) -> None:
        self._suspended_until = self._clock() + SUSPENSION_SECONDS
        self._record_error(StoreError(reason))

    def _record_error(self, error: StoreError) -> None:
        self._metrics.cache_errors.inc()
        now = self._clock()
        if self._logged is None or now - self._logged > LOG_INTERVAL_SECONDS:
            self._logged = now
            log.error("speech goes on without the audio cache: %s", error)
