"""The speech request of a job: the same in each attempt, of which each may speak a part of the text."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from balancer.audio.formats import AudioFormat
from balancer.jobs.job import Job
from balancer.requests.bodies import TtsBody
from balancer.requests.speech_request import SpeechRequest
from balancer.requests.validation import RequestValidator
from balancer.scheduling.priority import Priority


async def request_of(job: Job, validator: RequestValidator) -> SpeechRequest:
    """The request. Raises InvalidRequestError, ModelNotFoundError where it is no longer valid."""
    request = await validator.validate_for_client(TtsBody.model_validate(job.body))
    request = replace(request, priority=Priority.BATCH, format=AudioFormat(job.format), deadline_ms=None)
    if request.seeded:
        return request
    return replace(request, seed=int.from_bytes(sha256(job.id.encode()).digest()[:4], "big"))
