from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from balancer.access.api_keys import ApiKey, Role, digest_of
from balancer.access.caller import Caller, caller_of, operator_of
from balancer.errors import OperatorKeyRequiredError


def request(**state: Any) -> Request:
    return Request({"type": "http", "client": ("192.0.2.1", 4711), "headers": [], "state": state})


def caller(role: Role) -> Caller:
    key = ApiKey(name="shop", digest=digest_of("secret"), role=role)
    return Caller(key.name, key)


def test_a_caller_is_the_owner_of_its_key_or_an_address() -> None:
    assert caller_of(request()) == Caller("192.0.2.1")
    assert caller_of(request(caller=caller(Role.CLIENT))).name == "shop"


def test_only_an_operators_key_makes_an_operator() -> None:
    assert operator_of(request(caller=caller(Role.OPERATOR))) == caller(Role.OPERATOR)
    with pytest.raises(OperatorKeyRequiredError, match="your API key has the role 'client'"):
        operator_of(request(caller=caller(Role.CLIENT)))
    with pytest.raises(OperatorKeyRequiredError, match="chorus keys add NAME --role operator"):
        operator_of(request())
