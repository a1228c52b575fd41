from __future__ import annotations

import asyncio
from typing import cast

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.cache import best_effort as module
from balancer.cache.best_effort import BestEffortCache
from balancer.cache.store import AudioStore, CachedAudio
from balancer.metrics import Metrics
from tests.support.clock import Clock


class HangingStore:
    """A store whose disk does not answer, until `works`."""

    def __init__(self) -> None:
        self.works = False
        self.calls = 0

    async def get(self, _: str) -> CachedAudio | None:
        self.calls += 1
        if not self.works:
            await asyncio.Event().wait()
        return CachedAudio(MemoryBuffer(b"audio"), 1.0, 0.0)

    async def put(self, *_: object) -> None:
        self.calls += 1
        await asyncio.Event().wait()


async def test_a_store_that_hangs_is_a_miss_and_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READ_SECONDS", 0.02)
    store, clock = HangingStore(), Clock()
    cache = BestEffortCache(cast(AudioStore, store), Metrics("hibari"), clock)
    assert await cache.get("a") is None
    assert await cache.get("a") is None
    assert store.calls == 1, "the second request does not wait"
    store.works = True
    clock.now += module.SUSPENSION_SECONDS + 1
    assert await cache.get("a") is not None


async def test_a_write_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WRITE_SECONDS", 0.02)
    store = HangingStore()
    cache = BestEffortCache(cast(AudioStore, store), Metrics("hibari"), Clock())
    for _ in range(3):
        await cache.put("a", MemoryBuffer(b"audio"), 1.0, "one")
    assert store.calls == 1
