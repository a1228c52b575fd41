"""The location of the Redis that several hosts share, parsed from a URL. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus, urlsplit

SENTINEL_SUFFIX = "+sentinel"
SENTINEL_PORT = 26379
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}
"""Options of a URL that are for the Sentinels, by the names that the options have in redis-py."""
EXAMPLES = "redis://host:6379/0, rediss:// for TLS, or redis+sentinel://host,host/name/0"


@dataclass(frozen=True)
class RedisLocation:
    """A server, or the primary that Sentinels know by a name, whichever it is at the moment. `repr` has no password.

    With `rediss://` and `rediss+sentinel://` all connections are encrypted (TLS).
    """

    url: str = field(repr=False)
    """Of the server itself; with Sentinels, of a server at the address of the first, for all but the address."""
    sentinels: tuple[tuple[str, int], ...] = ()
    """Host and port of each Sentinel; none: the server is at the URL."""
    name: str = ""
    """By which the Sentinels know the primary."""
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`username` and `password` of the Sentinels themselves, as far as they require them: `?sentinel_password=…`."""

    @classmethod
    def parse(cls, url: str) -> RedisLocation:
        """Raises ValueError."""
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES or not rest or rest.startswith("/"):
            raise ValueError(f"must look like {EXAMPLES}")
        location, _, query = rest.partition("?")
        options = [option for option in query.split("&") if option]
        login = dict(_sentinel_option(option) for option in options if _is_for_sentinels(option))
        if not scheme.endswith(SENTINEL_SUFFIX):
            if login:
                raise ValueError(f"has no Sentinels to log in to: must look like {EXAMPLES}")
            return cls(url)
        user, at, listed = location.rpartition("@")
        hosts, _, path = listed.partition("/")
        name, _, database = path.partition("/")
        if not name:
            raise ValueError("must name the primary, such as redis+sentinel://host:26379/chorus/0")
        sentinels = tuple(_address(host) for host in hosts.split(","))
        plain = f"{scheme.removesuffix(SENTINEL_SUFFIX)}://{user}{at}{hosts.partition(',')[0]}/{database or 0}"
        others = "&".join(option for option in options if not _is_for_sentinels(option))
        return cls(f"{plain}?{others}" if others else plain, sentinels, name, login)


def _is_for_sentinels(option: str) -> bool:
    return option.partition("=")[0] in SENTINEL_OPTIONS


def _sentinel_option(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return SENTINEL_OPTIONS[name], unquote_plus(value)


def _address(text: str) -> tuple[str, int]:
    """Host and port of a Sentinel. Raises ValueError."""
    parsed = urlsplit(f"//{text}")
    if not parsed.hostname:
        raise ValueError(f"{text!r} is no host")
    return parsed.hostname, parsed.port or SENTINEL_PORT
