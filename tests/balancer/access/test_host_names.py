from __future__ import annotations

import pytest

from balancer.access.host_names import HostNames

NAMES = HostNames("https://Speech.example.org:8443/api", "tts.lan, other.lan:81,[2001:db8::7]")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:5000",
        "chorus.localhost",
        "127.0.0.1:5000",
        "127.8.9.1",
        "[::1]:5000",
        "localhost.",
        "speech.example.org",
        "speech.example.org:1",
        "tts.lan:5000",
        "other.lan",
        "[2001:db8::7]:5000",
    ],
)
def test_names_of_this_server(host: str) -> None:
    assert NAMES.names_host(host.encode())
    assert NAMES.names_origin(b"http://" + host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example:5000",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "[::2]",
        "\xff",
    ],
)
def test_names_of_others(host: str) -> None:
    assert not NAMES.names_host(host.encode("latin-1"))
    assert not NAMES.names_origin(b"http://" + host.encode("latin-1"))


def test_origins_of_other_pages_that_may_use_the_server() -> None:
    names = HostNames(origins=["https://page.example"])
    assert names.names_origin(b"https://page.example")
    assert not names.names_origin(b"https://page.example:8443")
    assert not names.names_origin(b"http://page.example")
    assert not names.names_host(b"page.example")
    assert HostNames(origins=["*"]).names_origin(b"null")
    assert not HostNames(origins=["*"]).names_host(b"evil.example")


@pytest.mark.parametrize("origin", [b"null", b"", b"localhost", b"file://", b"chrome-extension://localhost"])
def test_origins_that_are_no_web_page_of_this_host(origin: bytes) -> None:
    assert not NAMES.names_origin(origin)
