"""Connections to public addresses only, so that a client's webhook cannot reach this server's own network (SSRF).

Addresses are checked when the connection is made: by then a name may resolve to other addresses than when the URL was
accepted.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import httpcore

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

_NAT64 = ip_network("64:ff9b::/96")
"""IPv4 addresses embedded in IPv6 (RFC 6052)."""


class PrivateAddressError(httpcore.ConnectError):
    """The address belongs to no public network."""


def is_public(address: str) -> bool:
    """Whether an IP address is a public unicast address. An IPv4 address embedded in an IPv6 one decides for it."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            embedded = IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = embedded or ip
    return ip.is_global and not ip.is_multicast


def check_url(url: str, *, allow_private: bool) -> None:
    """Check the URL of a webhook when it is accepted. Raises ValueError, whose message follows the field's name."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("is not a URL") from error
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be an http or https URL, in ASCII")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or password; the signature authenticates the sender")
    try:
        public = is_public(host)
    except ValueError:
        public = host.rstrip(".").lower() != "localhost" and not host.endswith(".localhost")
    if not public and not allow_private:
        raise ValueError("must be at a public address")


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Network backend of the HTTP client. It connects to a name only if all of its addresses are public."""

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve the name once, check its addresses and connect to one. Raises PrivateAddressError, ConnectError."""
        addresses = await _resolve(host, port)
        if not self._allow_private and (private := [address for address in addresses if not is_public(address)]):
            raise PrivateAddressError(f"{host} resolves to {private[0]}, which is not a public address")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise httpcore.ConnectError(f"{host}: {failure}") from failure

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


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: the name is no valid domain name
        raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
