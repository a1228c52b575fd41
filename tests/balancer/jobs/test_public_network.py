from __future__ import annotations

import socket

import httpcore
import pytest

from balancer.jobs.public_addresses import is_public
from balancer.jobs.public_network import PrivateAddressError, PublicNetwork, check_url


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_private_addresses_in_every_notation(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("url", ["https://example.org/hook?x=1", "http://93.184.216.34:8080/", "https://a.example"])
def test_urls_that_are_accepted(url: str) -> None:
    check_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org/", "http or https"),
        ("example.org", "http or https"),
        ("https://", "http or https"),
        ("https://exämple.org/", "ASCII"),
        ("https://example.org/a b", "ASCII"),
        ("https://user:pass@example.org/", "user or password"),
        ("https://example.org:99999/", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://127.0.0.1/", "public address"),
        ("http://[::1]/", "public address"),
        ("http://localhost:8000/", "public address"),
        ("http://app.localhost/", "public address"),
        ("http://169.254.169.254/latest/meta-data", "public address"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_url(url, allow_private=False)


def test_private_urls_where_they_are_allowed() -> None:
    check_url("http://127.0.0.1:8000/", allow_private=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "::1"])
async def test_no_name_leads_to_a_private_address(host: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(PrivateAddressError, match="not a public address"):
            await PublicNetwork().connect_tcp(host, listener.getsockname()[1])
        stream = await PublicNetwork(allow_private=True).connect_tcp("127.0.0.1", listener.getsockname()[1])
        await stream.aclose()


@pytest.mark.parametrize("name", ["no-such-name.invalid", "a..b", "x" * 300, "-", "."])
async def test_a_name_that_cannot_be_resolved_is_an_error(name: str) -> None:
    with pytest.raises(httpcore.ConnectError, match="cannot be resolved"):
        await PublicNetwork().connect_tcp(name, 80)
