"""Attacks on the Redis that hosts share: full, read-only, standing still."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from scripts.attacks.attack import Attack, Checks, Criteria, all_spoken
from scripts.attacks.target import BYSTANDER_KEY, ChorusPlan, Target
from scripts.attacks.texts import new_text
from scripts.attacks.wire import ATTACKER
from scripts.support.check import Check
from scripts.support.redis_server import RedisServer

LIMIT = 20
LIMITED = ("carol", "--requests-per-minute", str(LIMIT))
MAX_ADMITTED = 2 * LIMIT
"""Requests in a minute: the limit once in Redis, and once on this host while Redis cannot count."""
FROZEN_SECONDS = 5.0
MAX_LOG_LINES = 12
"""Lines of log about Redis in the time of an attack, requests' own lines excepted."""

PLAN = ChorusPlan(redis=True, keys=((BYSTANDER_KEY,), LIMITED))


async def full(target: Target) -> Checks:
    """Redis at its maximum of memory, which any caller can bring about with jobs."""
    redis = _redis(target)
    redis.ask("CONFIG SET maxmemory-policy noeviction")
    redis.ask("CONFIG SET maxmemory 1mb")
    try:
        return await _limits_hold(target)
    finally:
        redis.ask("CONFIG SET maxmemory 0")


async def read_only(target: Target) -> Checks:
    """Redis as a replica that takes no writes."""
    redis = _redis(target)
    redis.ask("REPLICAOF 127.0.0.1 1")
    try:
        return await _limits_hold(target)
    finally:
        redis.ask("REPLICAOF NO ONE")


async def _limits_hold(target: Target) -> Checks:
    log_size = target.log.stat().st_size
    started = time.monotonic()
    statuses: Counter[str] = Counter()
    text = new_text()
    for _ in range(3 * LIMIT):
        statuses[await target.speech_status(text, cached=True, key=LIMITED[0], source=ATTACKER)] += 1
    await asyncio.sleep(max(0.0, started + target.duration - time.monotonic()))
    others = [await target.speech_status(new_text(), key=BYSTANDER_KEY) for _ in range(3)]
    lines = target.log.read_bytes()[log_size:].splitlines()
    own = [line for line in lines if b"POST /" not in line and b"utterance ok" not in line and b"GET /" not in line]
    return [
        Check(
            f"admitted of {3 * LIMIT}, with a limit of {LIMIT}",
            f"{dict(statuses)}",
            statuses["200"] <= MAX_ADMITTED,
        ),
        all_spoken("another caller's new texts", others),
        Check(f"other lines of log (at most {MAX_LOG_LINES})", str(len(own)), len(own) <= MAX_LOG_LINES),
    ]


async def frozen(target: Target) -> Checks:
    """Redis stands still: it keeps its connections and answers nothing."""
    redis = _redis(target)
    redis.freeze()
    try:
        statuses = []
        until = time.monotonic() + FROZEN_SECONDS
        while time.monotonic() < until:
            statuses.append(await target.speech_status(new_text(), key=BYSTANDER_KEY))
    finally:
        redis.thaw()
    return [all_spoken("another caller's new texts", statuses)]


def _redis(target: Target) -> RedisServer:
    if target.redis is None:
        raise target.server.failure("it has no Redis")
    return target.redis


ATTACKS = (
    Attack("redis-full", "Redis at maxmemory", full, PLAN),
    Attack("redis-read-only", "Redis is a replica", read_only, PLAN),
    # Without the cache, the bystander's text is synthesized.
    Attack("redis-frozen", "Redis answers nothing for some seconds", frozen, PLAN, Criteria(latency=False)),
)
