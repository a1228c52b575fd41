from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest

from balancer.jobs.public_addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34",
        "1.1.1.1",
        "172.15.255.255",
        "172.32.0.0",
        "198.17.255.255",
        "223.255.255.255",
        "2606:2800:220:1:248:1893:25c8:1946",
        "::ffff:93.184.216.34",
        "64:ff9b::5db8:d822",
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::5db8:d822",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::5db8:d822",
        "100::1",
        "2001::1",
        "2001:0:5db8:d822::1",
        "2001:2::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:5db8:d822::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_special_addresses_in_every_notation(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ],
)
def test_the_ipv4_address_behind_a_prefix_of_nat64_decides(prefix: str, address: str) -> None:
    """The examples of RFC 6052, 2.4: the address is 192.0.2.33, which is not public."""
    network = IPv6Network(prefix)
    public = IPv6Address(int(IPv6Address(address)) ^ (0xC0 ^ 0x08) << _shift(network))
    assert not is_public(address, [network])
    assert is_public(str(public), [network])


def _shift(network: IPv6Network) -> int:
    """The place of the first octet of the IPv4 address: 192 becomes 8, which is public."""
    if network.prefixlen == 64:
        return 48
    return 120 - network.prefixlen if network.prefixlen < 64 else 24
