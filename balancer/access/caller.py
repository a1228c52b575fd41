"""The caller of a request: an API key, or the client's address."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from balancer.access.api_keys import ApiKey


@dataclass(frozen=True)
class Caller:
    """Who sent a request: limits are theirs, and callers take turns."""

    name: str
    """The key's name, or the address: it tells nothing of the key."""
    key: ApiKey | None = None


def caller_of(request: Request) -> Caller:
    """Who sent it: the owner of its key, else its address."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is not None:
        return known
    return Caller(request.client.host if request.client is not None else "")
