"""One Redis for several hosts: what is shared goes through here, and whoever asks is told at once when it is gone.

A Redis that does not answer must not hold anyone up: after one failure everybody is refused without a try, until a ping
in the background has come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 1.0
"""An answer that takes longer counts as none."""
PING_INTERVAL_SECONDS = 1.0
"""Between two looks whether it is back."""

T = TypeVar("T")


class RedisUnavailableError(Exception):
    """Redis cannot be used at the moment; the message says why."""


class Script(Protocol):
    """A Lua script, registered with Redis when it is first called."""

    async def __call__(self, keys: Sequence[str], args: Iterable[Any]) -> Any:
        """Run it with these KEYS and ARGV, and return its result."""


class RedisClient:
    """Connections to the Redis at `url`, for as many callers as like. It connects by itself, and again."""

    def __init__(self, url: str) -> None:
        # Its own types leave open whether an answer has to be awaited, and whether it is text.
        self.raw: Any = Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, protocol=2
        )
        self.url = url
        self.address = f"redis://{url.rpartition('@')[2].rpartition('//')[2]}"
        """Its address, without any password."""
        self._unavailable_reason: str | None = None
        self._pinging: asyncio.Task[None] | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why it cannot be used; None where it can, as far as is known."""
        return self._unavailable_reason

    def load_script(self, package: str, name: str) -> Script:
        """The script `lua/<name>.lua` of a package."""
        script: Script = self.raw.register_script(files(package).joinpath("lua", f"{name}.lua").read_text("utf-8"))
        return script

    async def execute(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What `work` gives for the client. Raises RedisUnavailableError."""
        if self._unavailable_reason is not None:
            raise RedisUnavailableError(self._unavailable_reason)
        try:
            return await work(self.raw)
        except ResponseError as error:  # it is there, and refuses this: full memory, say
            raise RedisUnavailableError(f"Redis refuses: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            self.mark_unavailable(str(error) or type(error).__name__)
            raise RedisUnavailableError(self._unavailable_reason or "it does not answer") from error

    def mark_unavailable(self, why: str) -> None:
        """It failed: refuse everybody until it answers a ping."""
        if self._unavailable_reason is None:
            log.warning("Redis is unavailable: %s", why)
            self._unavailable_reason = f"Redis is unavailable: {why}"
            self._pinging = asyncio.create_task(self._ping_ping_until_back())

    async def _ping_ping_until_back(self) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_SECONDS)
            try:
                await self.raw.ping()
            except (RedisError, OSError, TimeoutError):
                continue
            self._unavailable_reason = None
            log.warning("Redis is available again")
            return

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pinging is not None:
            self._pinging.cancel()
        await self.raw.aclose()
