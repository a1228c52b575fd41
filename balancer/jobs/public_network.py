"""Connections to public addresses only: a client's webhook must not make this server speak to its own network.

The address is checked when it is connected to, not when the URL comes in: a name may point elsewhere by then.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import httpcore

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

_TRANSLATED = ip_network("64:ff9b::/96")
"""IPv4 within IPv6 (RFC 6052)."""


class PrivateAddressError(httpcore.ConnectError):
    """The address is not a public one."""


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, also where it is an IPv4 one within an IPv6 one."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _TRANSLATED:
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def check_url(url: str, *, allow_private: bool) -> None:
    """Look at an address to POST to, before it is connected to. Raises ValueError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("is no URL") from error
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be an http or https URL, in ASCII")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password; the signature tells who sends it")
    try:
        public = is_public(host)
    except ValueError:
        public = host.rstrip(".").lower() != "localhost" and not host.endswith(".localhost")
    if not public and not allow_private:
        raise ValueError("must be at a public address")


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """What connects for the HTTP client; every address of a name must be public."""

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
        """Resolve the name once, and connect to what was checked. Raises PrivateAddressError, ConnectError."""
        addresses = await _resolve(host, port)
        if not self._allow_private and (private := [found for found in addresses if not is_public(found)]):
            raise PrivateAddressError(f"{host} is {private[0]}, which is not a public address")
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
        """Nothing is asked for over such sockets."""
        raise httpcore.ConnectError("no Unix sockets")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for names that no name server could be asked for
        raise httpcore.ConnectError(f"{host} is not known: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
