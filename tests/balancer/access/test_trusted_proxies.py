from __future__ import annotations

import pytest

from balancer.access.trusted_proxies import TrustedProxies, parse_address

PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1:80 ", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_address_with_or_without_port(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "a=b c",
        "192.0.2.256",
        "192.0.2.1:http",
        "192.0.2.1:",
        "[2001:db8::1",
        "[2001:db8::1]80x",
        "fe80::1%eth0",
        "\x9b31mEVIL\x85line",
        "192.0.2.1\r\nx",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        (PEER, [], PEER),
        (PEER, ["203.0.113.5"], "203.0.113.5"),
        (PEER, ["203.0.113.5, 10.0.0.7"], "203.0.113.5"),
        (PEER, ["198.51.100.1", "203.0.113.5, 10.0.0.7"], "203.0.113.5"),
        (PEER, ["10.0.0.8, 10.0.0.7"], "10.0.0.8"),
        (PEER, ["[2001:db8::1]:443"], "2001:db8::1"),
        (PEER, ["unknown"], PEER),
        (PEER, ["\x9b31mEVIL\x85line"], PEER),
        (PEER, ["unknown, 203.0.113.5"], "203.0.113.5"),
        (PEER, ["203.0.113.5, unknown, 10.0.0.7"], PEER),
        ("203.0.113.9", ["203.0.113.5"], "203.0.113.9"),
        ("", ["203.0.113.5"], ""),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded_for: list[str], client: str) -> None:
    assert TrustedProxies("10.0.0.0/8, ::1").client_of(peer, forwarded_for) == client


def test_without_proxies_nothing_is_believed() -> None:
    assert not TrustedProxies(None)
    assert PEER not in TrustedProxies(None)
    assert TrustedProxies(None).client_of(PEER, ["203.0.113.5"]) == PEER
