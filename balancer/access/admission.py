"""What a caller may ask for, and how often: the key's voices and priority, and the rate limits.

Called by the routes once a request is understood, before anything is done for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from balancer.access.caller import Caller
from balancer.access.rate_limits import Quota, RateLimitRequest, RateLimits
from balancer.errors import ChorusError, NotAllowedError
from balancer.metrics import Metrics
from balancer.requests.speech_request import RequestContext, SpeechRequest, time_limit
from balancer.scheduling.priority import Priority


class Admission:
    """`quota` is for whoever has no other by their key; a request is held for `timeout` seconds at most."""

    def __init__(self, limits: RateLimits, quota: Quota, metrics: Metrics, *, timeout: float) -> None:
        self._limits = limits
        self._metrics = metrics
        self._quota = quota
        self._timeout = timeout

    @asynccontextmanager
    async def admit_speech(
        self, caller: Caller, request: SpeechRequest, context: RequestContext
    ) -> AsyncIterator[tuple[SpeechRequest, dict[str, str]]]:
        """A block for one request; it gives the request as the key allows it, and headers for its answer.

        Raises NotAllowedError, RateLimitedError, LimitsUnavailableError.
        """
        if caller.key is not None and caller.key.priority is Priority.BATCH:
            request = replace(request, priority=Priority.BATCH)
        hold = time_limit(request, context)
        async with self.admit(caller, len(request.text), [request.voice.name], hold=hold) as headers:
            yield request, headers

    @asynccontextmanager
    async def admit(
        self, caller: Caller, characters: int, voices: Collection[str], *, hold: float | None = None
    ) -> AsyncIterator[dict[str, str]]:
        """The same for so many characters in those voices, held for `hold` seconds at most if those are fewer."""
        until = asyncio.get_running_loop().time() + (self._timeout if hold is None else min(hold, self._timeout))
        request = RateLimitRequest(caller.name, self._quota.of(caller.key), characters, until)
        async with AsyncExitStack() as admitted:
            try:
                _check_voices(caller, voices)
                headers = await admitted.enter_async_context(self._limits.admit(request))
            except ChorusError as error:
                self._metrics.record_refusal(error.code)
                raise
            yield headers


def _check_voices(caller: Caller, voices: Collection[str]) -> None:
    allowed = None if caller.key is None else caller.key.voices
    if allowed is not None and (others := sorted(set(voices).difference(allowed))):
        raise NotAllowedError(
            f"your key does not allow voice {others[0]!r}; it allows: {', '.join(allowed)}",
            param="voice",
            code="voice_not_allowed",
        )
