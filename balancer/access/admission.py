"""Admission of requests: checks the voices and priority of the caller's API key, then the rate limits.

The routes call it once a request has been validated, before any work is done for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

from balancer.access.caller import Caller
from balancer.access.rate_limits import Quota, RateLimitRequest, RateLimits
from balancer.errors import ChorusError, NotAllowedError
from balancer.metrics import Metrics
from balancer.requests.speech_request import RequestContext, SpeechRequest, time_limit
from balancer.scheduling.priority import Priority
from voices.names import name_key


class Admission:
    """`quota` applies where the caller's API key sets no other. A request is held for at most `timeout` seconds."""

    def __init__(self, limits: RateLimits, quota: Quota, metrics: Metrics, *, timeout: float) -> None:
        self._limits = limits
        self._metrics = metrics
        self._quota = quota
        self._timeout = timeout

    def concurrency_of(self, caller: Caller) -> int | None:
        """Maximum number of requests, or jobs, of a caller that run at once; None: no limit."""
        return self._quota.of(caller.key).concurrency

    @asynccontextmanager
    async def admit_speech(
        self, caller: Caller, request: SpeechRequest, context: RequestContext
    ) -> AsyncIterator[tuple[SpeechRequest, dict[str, str]]]:
        """Admit one request for the time of the block.

        Yields the request with the priority that its API key allows, and rate limit headers for its response. Raises
        NotAllowedError, RateLimitedError, LimitsUnavailableError.
        """
        if caller.key is not None and caller.key.priority is Priority.BATCH:
            request = replace(request, priority=Priority.BATCH)
        limit = time_limit(request, context)
        counted = self._rate_limit_request(caller, request.characters, limit)
        headers = await self._enter(counted, caller, [request.voice.name])
        try:
            yield request, headers
        finally:
            self._limits.leave(counted)

    @asynccontextmanager
    async def admit(
        self, caller: Caller, characters: int, voices: Collection[str], *, requests: int = 1
    ) -> AsyncIterator[dict[str, str]]:
        """Admit a request of so many characters in these voices for the time of the block.

        It counts as `requests` requests, but as one at a time. Yields rate limit headers. Raises NotAllowedError,
        RateLimitedError, LimitsUnavailableError.
        """
        counted = self._rate_limit_request(caller, characters, requests=requests)
        headers = await self._enter(counted, caller, voices)
        try:
            yield headers
        finally:
            self._limits.leave(counted)

    def check_voices(self, caller: Caller, voices: Collection[str]) -> None:
        """Raise NotAllowedError if the caller's API key does not allow all of these voices."""
        try:
            _check_voices(caller, voices)
        except ChorusError as error:
            self._metrics.record_refusal(error.code)
            raise

    def _rate_limit_request(
        self, caller: Caller, characters: int, hold: float | None = None, *, requests: int = 1
    ) -> RateLimitRequest:
        """`hold`: most seconds that the request may be held, if that is less than the server's timeout."""
        until = asyncio.get_running_loop().time() + (self._timeout if hold is None else min(hold, self._timeout))
        return RateLimitRequest(caller.identity, self._quota.of(caller.key), characters, until, requests)

    async def _enter(self, request: RateLimitRequest, caller: Caller, voices: Collection[str]) -> dict[str, str]:
        self.check_voices(caller, voices)
        try:
            return await self._limits.enter(request)
        except ChorusError as error:
            self._metrics.record_refusal(error.code)
            raise


def _check_voices(caller: Caller, voices: Collection[str]) -> None:
    allowed = None if caller.key is None else caller.key.voices
    if allowed is None or not (others := set(voices).difference(allowed)):
        return
    keys = set(map(name_key, allowed))
    if forbidden := sorted(voice for voice in others if name_key(voice) not in keys):
        raise NotAllowedError(
            f"your API key does not allow voice {forbidden[0]!r}; it allows: {', '.join(allowed)}",
            param="voice",
            code="voice_not_allowed",
        )
