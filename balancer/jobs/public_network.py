"""Connections to public addresses only, so that a client's webhook cannot reach this server's own network (SSRF).

Addresses are checked when the connection is made: by then a name may resolve to other addresses than when the URL was
accepted. A name is resolved once, and the connection goes to an address that was checked.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any, Self
from urllib.parse import urlsplit

import httpcore

from balancer.jobs.public_addresses import is_public
from balancer.settings.jobs import JobSettings

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

ANY_PORT = (range(1, 65536),)

MAX_ANSWER_BYTES = 65_536
"""Bytes that are read of one connection. The status is all that is needed of an answer."""

_LOCAL_FAULTS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EAGAIN}
)
"""Errors of this host on opening a socket, for which no receiver can be blamed."""


class PrivateAddressError(httpcore.ConnectError):
    """The address belongs to no public network, or the port is not allowed."""


class LocalFaultError(httpcore.ConnectError):
    """The host of this server could not open a connection: it has no descriptor, port or memory left for one."""


@dataclass(frozen=True)
class ReceiverRules:
    """Rules that the receiver of a webhook must fulfil."""

    allow_private: bool = False
    """Whether to addresses of private networks."""
    ports: Sequence[range] = ANY_PORT
    nat64: Sequence[IPv6Network] = ()
    """Prefixes of this network's NAT64 translators."""

    @classmethod
    def of(cls, settings: JobSettings) -> Self:
        """The rules that the operator has set."""
        return cls(settings.webhook_private, settings.webhook_port_ranges, settings.webhook_nat64_networks)


def check_url(url: str, rules: ReceiverRules) -> None:
    """Check the URL of a webhook when it is accepted. Raises ValueError, whose message follows the field's name."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("is not a URL") from error
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be an http or https URL, in ASCII")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or password; the signature authenticates the sender")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    if not any(port in allowed for allowed in rules.ports):
        raise ValueError(f"must not use port {port}, which this server does not connect to")
    try:
        public = is_public(host, rules.nat64)
    except ValueError:
        name = host.rstrip(".").lower()
        public = name != "localhost" and not name.endswith(".localhost")
    if not public and not rules.allow_private:
        raise ValueError("must be at a public address")


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Network backend of an HTTP client. It connects to a name only if all of its addresses are public."""

    def __init__(self, rules: ReceiverRules) -> None:
        self._rules = rules
        self._network = httpcore.AnyIOBackend()
        self._lookup: asyncio.Future[list[str] | Exception] | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve the name once, check its addresses and connect to one of them.

        Raises PrivateAddressError, LocalFaultError, ConnectError, ConnectTimeout.
        """
        if not any(port in allowed for allowed in self._rules.ports):
            raise PrivateAddressError(f"webhooks are not sent to port {port}")
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
                private = [ip for ip in addresses if not is_public(ip, self._rules.nat64)]
                if private and not self._rules.allow_private:
                    raise PrivateAddressError(f"{host} resolves to {private[0]}, which is not a public address")
                return await self._connect(host, addresses, port, local_address, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not reached within {timeout:g} s") from error

    async def _connect(
        self,
        host: str,
        addresses: Sequence[str],
        port: int,
        local_address: str | None,
        socket_options: Iterable[SocketOption] | None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = await self._network.connect_tcp(address, port, None, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                if (local := _local_fault(error)) is not None:
                    raise LocalFaultError(f"{host}: {local.strerror}") from error
                failure = error
            else:
                return _LimitedStream(stream)
        raise httpcore.ConnectError(f"{host}: {failure}") from failure

    async def _resolve(self, host: str, port: int) -> list[str]:
        self._lookup = _look_up(host, port)
        found = await asyncio.shield(self._lookup)
        if isinstance(found, Exception):
            fault = httpcore.ConnectError if _local_fault(found) is None else LocalFaultError
            raise fault(f"{host} cannot be resolved: {found}") from found
        return found

    async def lookup_ended(self) -> None:
        """Wait until the last lookup has ended: its thread goes on where its connection is given up."""
        if self._lookup is not None:
            await asyncio.wait([self._lookup])

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raise ConnectError: webhooks never use Unix sockets."""
        raise httpcore.ConnectError("Unix sockets are not allowed")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class _LimitedStream(httpcore.AsyncNetworkStream):
    """A connection of which at most MAX_ANSWER_BYTES are read; then reading raises httpcore.ReadError."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left <= 0:
            raise httpcore.ReadError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        data = await self._stream.read(min(max_bytes, self._left), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _LimitedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _look_up(host: str, port: int) -> asyncio.Future[list[str] | Exception]:
    """Resolve a name in a thread of its own, which a slow name server may hold for as long as it likes."""
    loop = asyncio.get_running_loop()
    lookup: asyncio.Future[list[str] | Exception] = loop.create_future()

    def settle(found: list[str] | Exception) -> None:
        if not lookup.done():
            lookup.set_result(found)

    def resolve() -> None:
        found: list[str] | Exception
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(address[0]) for *_, address in addresses))
        except (OSError, UnicodeError) as error:  # UnicodeError: the name is no valid domain name
            found = error
        with suppress(RuntimeError):  # the event loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=resolve, name="webhook-lookup", daemon=True).start()
    return lookup


def _local_fault(error: BaseException) -> OSError | None:
    """The error, or one that it was raised from, that is a fault of this host; None if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, socket.gaierror) and cause.errno in _LOCAL_FAULTS:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
