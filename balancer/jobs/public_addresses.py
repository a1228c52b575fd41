"""Tells public IP addresses from others, by a table of this module's own.

`ipaddress.is_global` follows the table of the Python version that runs, and decides several embedded forms of an IPv4
address differently from one version to the next. Sources of this table, as of 2025-10:
https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_SPECIAL_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network (RFC 791)
        "10.0.0.0/8",  # private use (RFC 1918)
        "100.64.0.0/10",  # shared address space of carrier-grade NAT (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122)
        "169.254.0.0/16",  # link local, and the metadata services of clouds (RFC 3927)
        "172.16.0.0/12",  # private use (RFC 1918)
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.88.99.0/24",  # 6to4 relay anycast, deprecated (RFC 7526)
        "192.168.0.0/16",  # private use (RFC 1918)
        "198.18.0.0/15",  # benchmarking (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, and the limited broadcast address (RFC 1112, RFC 919)
    )
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The only IPv6 addresses that IANA assigns to public networks (RFC 4291). Loopback, unspecified, IPv4-compatible,
IPv4-translated (`::ffff:0:0:0/96`), discard-only, unique local, link local, site local and multicast lie outside."""

_SPECIAL_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID and others (RFC 2928)
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4: leads to an IPv4 address through any relay (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)

_IPV4_IN_IPV6 = (
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped: the kernel connects to the IPv4 address (RFC 4291)
    IPv6Network("64:ff9b::/96"),  # the well-known prefix of NAT64: a translator does (RFC 6052)
)
"""Networks whose last 32 bits are the IPv4 address that is reached. The local-use prefix `64:ff9b:1::/48` (RFC 8215) is
not among them: its translator may lead anywhere."""


def is_public(address: str, nat64: Sequence[IPv6Network] = ()) -> bool:
    """Whether an IP address is a public unicast address. Raises ValueError if it is no IP address.

    An IPv4 address that is reached through an IPv6 one decides for it; `nat64` are the prefixes of this network's own
    translators.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        prefix = next((network for network in (*_IPV4_IN_IPV6, *nat64) if ip in network), None)
        if prefix is None:
            return ip in _GLOBAL_UNICAST and not any(ip in network for network in _SPECIAL_IPV6)
        ip = _embedded(ip, prefix)
    return not any(ip in network for network in _SPECIAL_IPV4)


def _embedded(ip: IPv6Address, prefix: IPv6Network) -> IPv4Address:
    """The IPv4 address behind the prefix. Bits 64 to 71 are left out (RFC 6052, 2.2)."""
    bits = f"{int(ip):0128b}"
    behind = bits[96:] if prefix.prefixlen == 96 else bits[prefix.prefixlen : 64] + bits[72:]
    return IPv4Address(int(behind[:32], 2))
