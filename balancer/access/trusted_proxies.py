"""Proxies whose X-Forwarded-For is believed, and the client's address that they tell."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

IPAddress = IPv4Address | IPv6Address


class TrustedProxies:
    """Addresses and networks of proxies, separated by commas; None: there are none. Raises ValueError."""

    def __init__(self, networks: str | None) -> None:
        parts = [part.strip() for part in (networks or "").split(",")]
        self._networks = tuple(ip_network(part, strict=False) for part in parts if part)
        self._trusts = lru_cache(maxsize=4096)(self._is_trusted)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._networks)

    def __contains__(self, host: str) -> bool:
        """Whether this is the address of a trusted proxy."""
        return bool(self._networks) and self._trusts(host)

    def client_of(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The client's address, from the values of X-Forwarded-For: the last one that is not a trusted proxy's.

        `peer` is the address at the other end of the connection. It is the result if it is not trusted itself, or if
        a value that its proxies vouch for is no address.
        """
        client = peer
        for value in reversed([part for values in forwarded_for for part in values.split(",")]):
            if client not in self:
                break
            address = parse_address(value)
            if address is None:
                return peer
            client = str(address)
        return client

    def _is_trusted(self, host: str) -> bool:
        address = parse_address(host)
        return address is not None and any(address in network for network in self._networks)


def parse_address(text: str) -> IPAddress | None:
    """The IP address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None if it is none.

    An IPv4 address that is mapped into IPv6 counts as the IPv4 address. A zone (`fe80::1%eth0`) is not accepted.
    """
    text = text.strip()
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port.removeprefix(":"))):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(port):
            return None
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5
