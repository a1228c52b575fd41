"""One Redis for several hosts: what is shared goes through here, and whoever asks is told at once when it is gone.

A Redis that does not answer must not hold anyone up: after one failure everybody is refused without a try, until a ping
in the background has come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
"""An answer that takes longer counts as none."""
PING_SECONDS = 1.0
"""Between two looks whether it is back."""

T = TypeVar("T")


class RedisGoneError(Exception):
    """Redis cannot be used just now."""


class RedisLink:
    """Connections to the Redis at `url`, for as many callers as like. It connects by itself, and again."""

    def __init__(self, url: str) -> None:
        # Its own types leave open whether an answer has to be awaited, and whether it is text.
        self.client: Any = Redis.from_url(
            url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS, protocol=2
        )
        self.url = url
        self.where = f"redis://{url.rpartition('@')[2].rpartition('//')[2]}"
        """Its address, without any password."""
        self._gone: str | None = None
        self._pinging: asyncio.Task[None] | None = None

    @property
    def gone(self) -> str | None:
        """Why it cannot be used; None where it can, as far as is known."""
        return self._gone

    async def do(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What `work` gives for the client. Raises RedisGoneError."""
        if self._gone is not None:
            raise RedisGoneError(self._gone)
        try:
            return await work(self.client)
        except ResponseError as error:  # it is there, and refuses this: full memory, say
            raise RedisGoneError(f"Redis refuses: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            self.lost(str(error) or type(error).__name__)
            raise RedisGoneError(self._gone or "it does not answer") from error

    def lost(self, why: str) -> None:
        """It failed: refuse everybody until it answers a ping."""
        if self._gone is None:
            log.warning("Redis is gone: %s", why)
            self._gone = f"Redis is gone: {why}"
            self._pinging = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            try:
                await self.client.ping()
            except (RedisError, OSError, TimeoutError):
                continue
            self._gone = None
            log.warning("Redis is back")
            return

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pinging is not None:
            self._pinging.cancel()
        await self.client.aclose()
