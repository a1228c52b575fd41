"""Every error that a client can be answered with, each knowing its HTTP status and OpenAI-shaped body.

ChorusError
├── InvalidRequestError            400  the body does not say what to speak, or asks what is not offered
│   ├── BodyTooLargeError          413
│   ├── UnsupportedMediaTypeError  415
│   ├── DeadlineTooShortError      400  the text takes longer than its deadline leaves, whoever else waits
│   ├── ModelNotFoundError         404
│   ├── JobNotFoundError           404  no such job, or none that this caller may know of
│   ├── JobNotDoneError            409  the job is in a state that does not allow it
│   └── IdempotencyConflictError   409  the idempotency key has stood for another request
├── NotAuthenticatedError          401
├── NotAllowedError                403  the key does not allow it
├── RateLimitedError               429  more than the caller's limits allow
├── LimitsUnavailableError         503  the limits cannot be checked, and nothing is served without
├── JobsFullError                  503  too many jobs are queued
├── JobsUnavailableError           503  jobs cannot be kept just now
├── NotServingError                503  no worker can speak just now
├── QueueFullError                 503  too many utterances are queued
├── DeadlineUnreachableError       503  it would not be spoken by its deadline, so it is not begun
├── DeadlineExceededError          504  not spoken in time
└── SynthesisError                 500  the engine failed on this utterance
    └── PoisonedError              500  the utterance killed two workers
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar, Self


class ChorusError(Exception):
    """Base of all; `message` tells the client what is wrong and what to do, `param` names the field at fault."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.retry_after = retry_after
        self.headers = dict(headers or {})

    def naming(self, param: str) -> Self:
        """The same error, with the field at fault. A copy: several requests may share one failure."""
        error = copy(self)
        error.param = param
        return error

    def at(self, place: str) -> Self:
        """The same error, of one part of the request."""
        error = copy(self)
        error.message = f"{place}: {self.message}"
        return error

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        return {
            "error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code},
        }


class InvalidRequestError(ChorusError):
    """The request itself is at fault: sending it again will not help."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class BodyTooLargeError(InvalidRequestError):
    """The body is over the limit; it was not read to its end."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body is not said to be JSON."""

    status = 415
    code = "unsupported_media_type"


class DeadlineTooShortError(InvalidRequestError):
    """The text takes longer to speak than its deadline leaves, even if nobody else waits."""

    code = "deadline_too_short"


class ModelNotFoundError(InvalidRequestError):
    """The model asked for is not the one that runs here."""

    status = 404
    code = "model_not_found"


class JobNotFoundError(InvalidRequestError):
    """No such job, or none that this caller may know of."""

    status = 404
    code = "job_not_found"


class JobNotDoneError(InvalidRequestError):
    """The job's state does not allow what is asked."""

    status = 409
    code = "job_not_done"


class IdempotencyConflictError(InvalidRequestError):
    """One idempotency key for two different requests."""

    status = 409
    code = "idempotency_key_reused"


class NotAuthenticatedError(ChorusError):
    """No valid API key came with the request."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotAllowedError(ChorusError):
    """The key is valid, and does not allow this."""

    status = 403
    type = "permission_error"
    code = "not_allowed"


class RateLimitedError(ChorusError):
    """The caller asks more often, or for more, than its limits allow."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class LimitsUnavailableError(ChorusError):
    """Redis is gone, and the operator wants nothing served without limits."""

    status = 503
    code = "limits_unavailable"


class JobsFullError(ChorusError):
    """More jobs are queued than the limit allows."""

    status = 503
    code = "jobs_full"


class JobsUnavailableError(ChorusError):
    """The store of the jobs cannot be used just now."""

    status = 503
    code = "jobs_unavailable"


class NotServingError(ChorusError):
    """No worker is up, or will be soon."""

    status = 503
    code = "no_worker"


class QueueFullError(ChorusError):
    """More utterances are queued than the limit allows."""

    status = 503
    code = "queue_full"


class DeadlineUnreachableError(ChorusError):
    """What waits already leaves too little of the time that the client gives."""

    status = 503
    code = "deadline_unreachable"


class DeadlineExceededError(ChorusError):
    """The time for the request ran out."""

    status = 504
    code = "deadline_exceeded"


class SynthesisError(ChorusError):
    """The engine failed on this text."""

    code = "synthesis_failed"


class PoisonedError(SynthesisError):
    """Two workers died of this utterance; it is not tried on a third."""

    code = "utterance_poisoned"
