from __future__ import annotations

import socket

import httpcore
import pytest
from pydantic import ValidationError

from balancer.jobs.public_network import PrivateAddressError, PublicNetwork, ReceiverRules, check_url
from balancer.settings.jobs import JobSettings


@pytest.mark.parametrize("url", ["https://example.org/hook?x=1", "http://93.184.216.34:8080/", "https://a.example"])
def test_urls_that_are_accepted(url: str) -> None:
    check_url(url, ReceiverRules())


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
        check_url(url, ReceiverRules())


@pytest.mark.parametrize("url", ["http://example.org:22/", "https://example.org:442/", "http://example.org:1023/"])
def test_ports_that_are_not_allowed(url: str) -> None:
    rules = ReceiverRules.of(JobSettings())
    with pytest.raises(ValueError, match="must not use port"):
        check_url(url, rules)
    check_url("https://example.org/", rules)
    check_url("http://example.org:8080/", rules)


async def test_no_connection_is_made_to_a_port_that_is_not_allowed() -> None:
    with pytest.raises(PrivateAddressError, match="port 22"):
        await PublicNetwork(ReceiverRules.of(JobSettings())).connect_tcp("93.184.216.34", 22)


@pytest.mark.parametrize("ports", ["", "a", "0", "70000", "90-80", "80,,443", "-1"])
def test_ports_of_the_setting_are_checked(ports: str) -> None:
    with pytest.raises(ValidationError):
        JobSettings(webhook_ports=ports)


def test_private_urls_where_they_are_allowed() -> None:
    check_url("http://127.0.0.1:8000/", ReceiverRules(allow_private=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "::1"])
async def test_no_name_leads_to_a_private_address(host: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(PrivateAddressError, match="not a public address"):
            await PublicNetwork(ReceiverRules()).connect_tcp(host, listener.getsockname()[1])
        stream = await PublicNetwork(ReceiverRules(allow_private=True)).connect_tcp(
            "127.0.0.1", listener.getsockname()[1]
        )
        await stream.aclose()


@pytest.mark.parametrize("name", ["no-such-name.invalid", "a..b", "x" * 300, "-", "."])
async def test_a_name_that_cannot_be_resolved_is_an_error(name: str) -> None:
    with pytest.raises(httpcore.ConnectError, match="cannot be resolved"):
        await PublicNetwork(ReceiverRules()).connect_tcp(name, 80)


async def test_private_addresses_behind_a_translator_of_this_network_are_refused() -> None:
    rules = ReceiverRules.of(JobSettings(webhook_nat64="2600:64::/96, 2600:65::/48"))
    for url in ("http://[2600:64::10.0.0.1]/", "http://[2600:65:0:a00:0:100::]/"):
        check_url(url, ReceiverRules())
        with pytest.raises(ValueError, match="public address"):
            check_url(url, rules)
    with pytest.raises(PrivateAddressError, match="not a public address"):
        await PublicNetwork(rules).connect_tcp("2600:64::7f00:1", 80)
    check_url("http://[2600:64::93.184.216.34]/", rules)


@pytest.mark.parametrize("prefixes", ["2600:64::/95", "10.0.0.0/8", "2600:64::1/96", "x"])
def test_prefixes_of_the_setting_are_checked(prefixes: str) -> None:
    with pytest.raises(ValidationError):
        JobSettings(webhook_nat64=prefixes)
