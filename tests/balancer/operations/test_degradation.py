from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from balancer.operations.degradation import Degradation
from balancer.redis.client import RedisClient
from tests.support.harness import TIMEOUT

UNWRITABLE = Path("/proc/chorus")
"""Even root makes no file there."""


async def test_a_folder_that_cannot_be_written_is_named_with_its_user(tmp_path: Path) -> None:
    folders = {"jobs": UNWRITABLE, "audio cache": tmp_path / "is" / "made" / "later"}
    degradation = Degradation(folders, None)
    looking = asyncio.create_task(degradation.run())
    async with asyncio.timeout(TIMEOUT):
        while not degradation.reasons():
            await asyncio.sleep(0)
    looking.cancel()
    (reason,) = degradation.reasons()
    assert reason.startswith(f"jobs: {UNWRITABLE} cannot be written: ")
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_redis_is_named_while_it_is_gone() -> None:
    redis = SimpleNamespace(unavailable_reason="Redis is unavailable: Connection refused")
    degradation = Degradation({}, cast("RedisClient", redis))
    assert degradation.reasons() == ["Redis is unavailable: Connection refused"]
    redis.unavailable_reason = None
    assert degradation.reasons() == []
