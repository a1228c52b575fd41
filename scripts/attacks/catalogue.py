"""All attacks, by kind, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.attacks import (
    cache,
    connections,
    encoders,
    job_store,
    jobs,
    keys,
    messages,
    processes,
    readers,
    redis_faults,
    voices,
    webhooks,
    workers,
)
from scripts.attacks.attack import Attack

ATTACKS: Mapping[str, Sequence[Attack]] = {
    "connections": connections.ATTACKS,
    "messages": messages.ATTACKS,
    "readers": readers.ATTACKS,
    "encoders": encoders.ATTACKS,
    "jobs": jobs.ATTACKS,
    "job-store": job_store.ATTACKS,
    "webhooks": webhooks.ATTACKS,
    "cache": cache.ATTACKS,
    "redis": redis_faults.ATTACKS,
    "workers": workers.ATTACKS,
    "keys": keys.ATTACKS,
    "voices": voices.ATTACKS,
    "processes": processes.ATTACKS,
}
