"""The stores of cached audio, jobs and daily counters: files on this host, or a Redis that several hosts share.

Redis's package is loaded only where there is a Redis: that takes a tenth of a second of each start.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer.access.sqlite_counters import SqliteCounterStorage
from balancer.cache.file_store import FileStore
from balancer.cache.store import AudioStore, StoreError
from balancer.jobs.limits import JobLimits
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import JobStore, JobStoreError
from balancer.runtime.expiry_clock import ExpiryClock
from balancer.settings.jobs import JobSettings
from balancer.settings.storage import StorageSettings

if TYPE_CHECKING:
    from balancer.redis.client import RedisClient


@dataclass(frozen=True)
class Stores:
    """The stores of one server."""

    audio: AudioStore | None
    """None if the cache is turned off."""
    jobs: JobStore
    redis: RedisClient | None = None
    daily_counters: SqliteCounterStorage | None = None
    """Rate limit counters of a day; None if Redis holds them."""

    async def aclose(self) -> None:
        """Close files and connections."""
        if self.audio is not None:
            with suppress(StoreError):
                await self.audio.aclose()
        with suppress(JobStoreError):
            await self.jobs.aclose()
        if self.redis is not None:
            await self.redis.aclose()
        if self.daily_counters is not None:
            self.daily_counters.close()


def open_stores(settings: StorageSettings, job_settings: JobSettings | None = None) -> Stores:
    """The stores that these settings ask for. A store opens its files and connections when it is first used."""
    limit, lifetime = settings.cache_bytes, settings.cache_seconds
    job_limits = JobLimits.of(job_settings or JobSettings())
    if settings.redis_url is None:
        audio: AudioStore = FileStore(settings.cache_dir / "audio", limit=limit, lifetime=lifetime)
        counters = SqliteCounterStorage(settings.data_dir / "counts.sqlite3", ExpiryClock())
        jobs = SqliteJobStore(settings.data_dir / "jobs", limits=job_limits)
        return Stores(audio if limit else None, jobs, daily_counters=counters)
    from balancer.cache.redis_store import RedisStore  # noqa: PLC0415 - see above
    from balancer.jobs.redis.store import RedisJobStore  # noqa: PLC0415
    from balancer.redis.client import RedisClient  # noqa: PLC0415

    redis = RedisClient(settings.redis_url.get_secret_value())
    audio = RedisStore(redis, limit=limit, lifetime=lifetime)
    shared_jobs = RedisJobStore(redis, settings.cache_dir / "job-audio", limits=job_limits)
    return Stores(audio if limit else None, shared_jobs, redis)
