"""The client of the Redis that several hosts share. It fails at once while Redis is unavailable.

A Redis that does not answer must not delay requests: after one failure every command fails without being sent, until a
ping in the background is answered (a circuit breaker).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 1.0
"""Time limit of connecting and of each command."""
PING_INTERVAL_SECONDS = 1.0
"""Pause between two pings while Redis is unavailable."""
QUIET_SECONDS = 60.0
"""A kind of refusal is logged again only after so long without one."""

T = TypeVar("T")


class RedisUnavailableError(Exception):
    """Redis cannot be used at the moment; the message says why."""


class Script(Protocol):
    """A Lua script, registered with Redis when it is first called."""

    async def __call__(self, keys: Sequence[str], args: Iterable[Any]) -> Any:
        """Run it with these KEYS and ARGV, and return its result."""


class RedisClient:
    """A client for the Redis at `url`, with a pool of connections that it opens when they are needed."""

    def __init__(self, url: str) -> None:
        # Any: redis-py's types leave open whether a result is awaitable, and whether it is text.
        self.raw: Any = Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, protocol=2
        )
        self.url = url
        self.address = f"redis://{url.rpartition('@')[2].rpartition('//')[2]}"
        """The URL without user and password."""
        self._unavailable_reason: str | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._refusals: dict[str, float] = {}
        """When a kind of refusal, such as `OOM` or `READONLY`, was last seen, on the monotonic clock."""

    @property
    def unavailable_reason(self) -> str | None:
        """Why Redis cannot be used; None if it can, as far as is known."""
        return self._unavailable_reason

    def load_script(self, package: str, *names: str) -> Script:
        """The script `lua/<name>.lua` of a package; several are joined to one, as Redis knows no imports."""
        folder = files(package).joinpath("lua")
        text = "\n".join(folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names)
        script: Script = self.raw.register_script(text)
        return script

    async def execute(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Call `work` with the redis-py client and return its result. Raises RedisUnavailableError."""
        if self._unavailable_reason is not None:
            raise RedisUnavailableError(self._unavailable_reason)
        try:
            return await work(self.raw)
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisUnavailableError(self.report(error)) from error

    def report(self, error: Exception) -> str:
        """Report a failed command, and return why Redis cannot be used.

        A Redis that answers, but refuses a command because its memory is full or it is a replica, stays available: it
        answers pings as well, and may serve other commands.
        """
        reason = str(error) or type(error).__name__
        if not isinstance(error, ResponseError):
            self.mark_unavailable(reason)
            return self._unavailable_reason or reason
        kind = reason.split(maxsplit=1)[0]
        now = time.monotonic()
        if now - self._refusals.get(kind, -QUIET_SECONDS) >= QUIET_SECONDS:
            log.warning("Redis refuses commands: %s", reason)
        self._refusals[kind] = now
        return f"Redis refused a command: {reason}"

    def mark_unavailable(self, reason: str) -> None:
        """Fail every command from now on, until Redis answers a ping."""
        if self._unavailable_reason is None:
            log.warning("Redis is unavailable: %s", reason)
            self._unavailable_reason = f"Redis is unavailable: {reason}"
            self._pinging = asyncio.create_task(self._ping_until_available())

    async def _ping_until_available(self) -> None:
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
