"""The audio cache as the speech service uses it: a store that fails never fails a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from balancer.cache.store import AudioStore, CachedAudio, StoreError
from balancer.metrics import Metrics

log = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 30.0
"""Minimum pause between two log lines about a failing store: otherwise each request would write one."""


class BestEffortCache:
    """A cache over a store, whose errors it counts and logs. Without a store it is always empty."""

    def __init__(self, store: AudioStore | None, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._logged: float | None = None

    async def get(self, cache_key: str) -> CachedAudio | None:
        """The cached audio; None on a cache miss, or if the store fails."""
        if self._store is None:
            return None
        try:
            return await self._store.get(cache_key)
        except StoreError as error:
            self._record_error(error)
            return None

    async def put(self, cache_key: str, data: bytes, seconds: float) -> None:
        """Store audio that lasts `seconds` at speed 1, if the store works."""
        if self._store is None:
            return
        try:
            await self._store.put(cache_key, CachedAudio(data, seconds, time.time()))
        except StoreError as error:
            self._record_error(error)

    def _record_error(self, error: StoreError) -> None:
        self._metrics.cache_errors.inc()
        now = self._clock()
        if self._logged is None or now - self._logged > LOG_INTERVAL_SECONDS:
            self._logged = now
            log.error("speech goes on without the audio cache: %s", error)
