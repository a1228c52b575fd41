"""A real Redis server of the test's own, on a free port, with its data in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.support import redis_server
from scripts.support.redis_server import RedisServer


@contextmanager
def start_redis(*, durable: bool = True) -> Iterator[RedisServer]:
    """Run a server, which the end of the block kills. One that is not `durable` waits for no disk."""
    with (
        tempfile.TemporaryDirectory(prefix="chorus-redis-") as folder,
        redis_server.start_redis(Path(folder), durable=durable) as server,
    ):
        yield server
