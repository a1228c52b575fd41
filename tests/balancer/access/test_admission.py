"""What a caller's API key allows."""

from __future__ import annotations

import pytest

from balancer.access.admission import Admission
from balancer.access.api_keys import ApiKey, digest_of
from balancer.access.caller import Caller
from balancer.access.rate_limits import Quota, RateLimits
from balancer.errors import NotAllowedError
from balancer.metrics import Metrics


async def admit(voice: str, allowed: tuple[str, ...]) -> None:
    admission = Admission(RateLimits(), Quota(), Metrics("hibari"), timeout=1)
    caller = Caller("shop", ApiKey(name="shop", digest=digest_of("secret"), voices=allowed))
    async with admission.admit(caller, 10, {voice}):
        pass


@pytest.mark.parametrize(("voice", "allowed"), [("ada", ("ada",)), ("Zoë", ("ada", "ZOË ")), ("ADA", ("Ada",))])
async def test_voices_of_a_key_are_compared_without_case(voice: str, allowed: tuple[str, ...]) -> None:
    await admit(voice, allowed)


@pytest.mark.parametrize("allowed", [(), ("Zoe",), ("adam", "ad a")])
async def test_other_voices_are_refused(allowed: tuple[str, ...]) -> None:
    with pytest.raises(NotAllowedError, match="does not allow voice 'ada'"):
        await admit("ada", allowed)
