"""The audio cache as the speech service asks it: it has something or not, and never fails a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from balancer.cache.store import AudioStore, CachedAudio, StoreError
from balancer.metrics import Metrics

log = logging.getLogger(__name__)

LOG_SECONDS = 30.0
"""Between two lines about a store that fails: each request would have one to write."""


class BestEffortCache:
    """A store, whose failures are counted and logged. With no store, it keeps nothing."""

    def __init__(self, store: AudioStore | None, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._logged: float | None = None

    async def get(self, key: str) -> CachedAudio | None:
        """What is kept under the key, as far as the store can tell."""
        if self._store is None:
            return None
        try:
            return await self._store.get(key)
        except StoreError as error:
            self._failed(error)
            return None

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        """Keep audio, if the store can."""
        if self._store is None:
            return
        try:
            await self._store.put(key, CachedAudio(data, seconds, time.time()))
        except StoreError as error:
            self._failed(error)

    def _failed(self, error: StoreError) -> None:
        self._metrics.cache_errors.inc()
        now = self._clock()
        if self._logged is None or now - self._logged > LOG_SECONDS:
            self._logged = now
            log.error("speech goes on without the audio cache: %s", error)
