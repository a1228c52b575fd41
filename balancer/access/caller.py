"""The caller of a request: an API key, or the client's address."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from balancer.access.api_keys import ApiKey, Role
from balancer.errors import OperatorKeyRequiredError


@dataclass(frozen=True)
class Caller:
    """The sender of a request. Rate limits are counted per caller, and callers take turns in the queue."""

    name: str
    """The API key's name, or the client's address, for the log; never the key itself."""
    key: ApiKey | None = None

    @property
    def identity(self) -> str:
        """The key of its jobs and counters: the API key's identity, or the client's address."""
        return self.name if self.key is None else self.key.identity


def is_stranger(request: Request) -> bool:
    """Whether the server requires API keys and the request has none: it was let in because its path is open."""
    return bool(getattr(request.state, "stranger", False))


def is_link(request: Request) -> bool:
    """Whether the request is a signed link: its caller is who made it."""
    return bool(getattr(request.state, "link", False))


def caller_of(request: Request) -> Caller:
    """The caller of a request: the owner of its API key, else the client's address."""
    # Not `request.state`, which for every request without a key would raise an exception, and `getattr` catch it.
    known: Caller | None = request.scope.get("state", {}).get("caller")
    if known is not None:
        return known
    client = request.scope.get("client")
    return Caller(client[0] if client is not None else "")


def operator_of(request: Request) -> Caller:
    """The caller of a request that is for operators. Raises OperatorKeyRequiredError for any other caller."""
    caller = caller_of(request)
    if caller.key is None:
        raise OperatorKeyRequiredError(
            "without API keys, this server takes no operator's request from the network: use the chorus command on its "
            "host, or make an operator's key there with `chorus keys add NAME --role operator`; from then on every "
            "request needs a key"
        )
    if caller.key.role is not Role.OPERATOR:
        raise OperatorKeyRequiredError(
            f"your API key has the role {caller.key.role.value!r}, and this needs an operator's: "
            "`chorus keys add NAME --role operator` makes one on the server's host"
        )
    return caller
