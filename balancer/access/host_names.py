"""The names of this server that the headers Host and Origin may have.

A web page can have its own name resolve to 127.0.0.1 (DNS rebinding): for the browser, a server there without API keys
is then part of the page. The Host header still has the page's name.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from balancer.access.trusted_proxies import parse_address
from balancer.settings.access import ANY_ORIGIN


class HostNames:
    """Loopback names and addresses, the host of `public_url`, and `further` names, separated by commas.

    `origins` are those of other web pages that may use this server, too; ANY_ORIGIN among them: all may.
    """

    def __init__(
        self, public_url: str | None = None, further: str | None = None, origins: Collection[str] = ()
    ) -> None:
        names = [name.strip() for name in (further or "").split(",")]
        if public_url is not None:
            names.append(urlsplit(public_url).hostname or "")
        self._names = frozenset(_without_port(name) for name in names if name)
        self._origins = frozenset(origins)
        self.names_host = lru_cache(maxsize=256)(self._names_host)
        """Whether a Host header's value names this server."""
        self.names_origin = lru_cache(maxsize=256)(self._names_origin)
        """Whether an Origin header's value is a page of this server, of another one on this host, or allowed."""

    def _names_host(self, value: bytes) -> bool:
        name = _without_port(value.decode("latin-1"))
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        address = parse_address(name)
        return address is not None and address.is_loopback

    def _names_origin(self, value: bytes) -> bool:
        origin = value.decode("latin-1")
        if origin in self._origins or ANY_ORIGIN in self._origins:
            return True
        scheme, separator, host = origin.partition("://")
        return bool(separator) and scheme.lower() in ("http", "https") and self._names_host(host.encode("latin-1"))


def _without_port(host: str) -> str:
    """`example.org:80` and `[::1]:80` without their ports and brackets, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0].removesuffix(".")
