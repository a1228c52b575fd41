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
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError, ResponseError

from balancer.redis.location import RedisLocation

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 1.0
"""Time limit of connecting and of each command."""
PING_INTERVAL_SECONDS = 1.0
"""Pause between two pings while Redis is unavailable."""
QUIET_SECONDS = 60.0
"""A kind of refusal is logged again only after so long without one."""

REPLICA_MILLISECONDS = 500
"""Time limit within which a replica is to have what was written."""
WITHOUT_REPLICA_SECONDS = 10.0
"""After a write that no replica has followed, those of so many seconds are not waited for."""

T = TypeVar("T")


def _clients(location: RedisLocation) -> list[Any]:
    """The client of the server, and after it those of the Sentinels that know its address: to be closed, all."""
    timeouts: dict[str, Any] = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    if not location.sentinels:
        return [Redis.from_url(location.url, **timeouts, protocol=2)]
    options: dict[str, Any] = dict(parse_url(location.url))
    del options["host"], options["port"]
    encrypted = options.pop("connection_class", None) is SSLConnection
    own = {name: value for name, value in options.items() if name.startswith("ssl_")} | {"ssl": encrypted}
    own |= {**location.sentinel_login, **timeouts}
    sentinel: Any = Sentinel(location.sentinels, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    primary = sentinel.master_for(location.name, ssl=encrypted, **options, **timeouts, protocol=2)
    return [primary, *sentinel.sentinels]


async def _close(clients: Iterable[Any]) -> None:
    for client in clients:
        await client.aclose()


async def is_cluster(url: str) -> bool:
    """Whether the Redis at a URL is a node of a cluster; False if it does not say."""
    clients = _clients(RedisLocation.parse(url))
    try:
        info: dict[str, Any] = await clients[0].info("cluster")
    except (RedisError, OSError, TimeoutError):
        return False
    finally:
        await _close(clients)
    return bool(info.get("cluster_enabled"))


class RedisUnavailableError(Exception):
    """Redis cannot be used at the moment; the message says why."""


class Script(Protocol):
    """A Lua script, registered with Redis when it is first called."""

    async def __call__(self, keys: Sequence[str], args: Iterable[Any]) -> Any:
        """Run it with these KEYS and ARGV, and return its result."""


class RedisClient:
    """A client for the Redis at `url`, with a pool of connections that it opens when they are needed.

    See RedisLocation for its forms.
    """

    def __init__(self, url: str) -> None:
        location = RedisLocation.parse(url)
        # Any: redis-py's types leave open whether a result is awaitable, and whether it is text.
        self._clients = _clients(location)
        self.raw: Any = self._clients[0]
        self.address = f"redis://{url.rpartition('@')[2].rpartition('//')[2].partition('?')[0]}"
        """The URL without user, password and options."""
        self._replicated = bool(location.sentinels)
        self._no_replica_until = 0.0
        self._unavailable_reason: str | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._refusals: dict[str, float] = {}
        """The time at which a kind of refusal, such as `OOM` or `READONLY`, was last seen, on the monotonic clock."""

    @property
    def unavailable_reason(self) -> str | None:
        """Why Redis cannot be used; None if it can, as far as is known."""
        return self._unavailable_reason

    def load_script(self, package: str, *names: str, durable: bool = False) -> Script:
        """The script `lua/<name>.lua` of a package; several are joined to one, as Redis knows no imports.

        Where a replica may take the place of the primary (Sentinel), what a `durable` one has changed is on a replica,
        too, when it has returned, if any follows.
        """
        folder = files(package).joinpath("lua")
        text = "\n".join(folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names)
        script: Any = self.raw.register_script(text)
        if not (durable and self._replicated):
            plain: Script = script
            return plain

        async def run(keys: Sequence[str], args: Iterable[Any]) -> Any:
            async with self.raw.client() as connection:  # WAIT is about what its own connection has written
                result = await script(keys, args, client=connection)
                await self._await_replica(connection)
                return result

        return run

    async def _await_replica(self, connection: Any) -> None:
        if time.monotonic() < self._no_replica_until:
            return
        if not await connection.wait(1, REPLICA_MILLISECONDS):
            # After a failover there may be none for a while: the alternative were to take no jobs meanwhile. Redis's
            # own setting min-replicas-to-write refuses them.
            log.warning("no replica of Redis follows: what is written now is lost if the primary is")
            self._no_replica_until = time.monotonic() + WITHOUT_REPLICA_SECONDS

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
        await _close(self._clients)
