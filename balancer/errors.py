"""Errors that are sent to clients. Each class has an HTTP status, and the type and code of OpenAI's API errors.

ChorusError
├── InvalidRequestError            400  the request is malformed, or asks for something this server does not offer
│   ├── InvalidHttpError           400  the bytes are not a request of HTTP/1.1
│   ├── MisdirectedRequestError    421  the Host header names another server
│   ├── RequestTimeoutError        408  the client sends its request too slowly
│   ├── UriTooLongError            414
│   ├── HeadTooLargeError          431  the headers are too large or too many
│   ├── ExpectationFailedError     417
│   ├── RangeNotSatisfiableError   416
│   ├── BodyTooLargeError          413
│   ├── AudioTooLargeError         413  the audio is too large for a JSON response, or for one job
│   ├── UnsupportedMediaTypeError  415
│   ├── DocumentRefusedError       400  the document is damaged, or has nothing to speak
│   ├── ClipRefusedError           400  the recording is not good enough to clone a voice from
│   ├── VoiceNotFoundError         404  there is no such voice to show or to remove
│   ├── VoiceExistsError           409  a voice has that name or alias already
│   ├── DeadlineTooShortError      400  the deadline is shorter than the synthesis itself, even on an idle server
│   ├── ModelNotFoundError         404
│   ├── JobNotFoundError           404  no such job, or it belongs to another API key
│   ├── JobNotDoneError            409  the state of the job does not allow the operation
│   └── IdempotencyConflictError   409  the idempotency key was used for a different request
├── NotAuthenticatedError          401
├── NotAllowedError                403  the API key does not permit it
│   ├── OperatorKeyRequiredError   403  only an operator's API key permits it
│   ├── LinkInvalidError           403  the signature of a link does not fit, or its API key was revoked
│   └── LinkExpiredError           403
├── RateLimitedError               429  the caller's rate limit is exceeded
├── LimitsUnavailableError         503  the rate limits cannot be checked, and the server refuses requests without them
├── JobsFullError                  503  too many jobs are queued, or their audio fills the store
├── JobShareFullError              429  the same, of the caller's own share
├── JobsUnavailableError           503  the job store is unavailable
├── VoicesUnavailableError         503  the folder of voices cannot be read or written, or too much waits for it
├── TooManyConnectionsError        503  all connections are taken
├── NotServingError                503  no worker is ready
├── QueueFullError                 503  too many utterances are queued
├── MemoryFullError                503  too much is under way: audio, or bodies of requests
├── TooManyStreamsError            503  too many event streams are open
├── NoHeadroomError                503  the host cannot make the audio of one more stream as fast as it plays
├── DeadlineUnreachableError       503  the queue is too long to meet the deadline; synthesis was not started
├── DeadlineExceededError          504  the deadline passed before the audio was complete
└── SynthesisError                 500  the engine failed on this utterance
    └── PoisonedError              500  several workers crashed or timed out on the utterance
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import ClassVar, Self


class ChorusError(Exception):
    """Base class.

    `message` tells the client what is wrong and what to do; `param` is the invalid field, or None. `retry_after` is in
    seconds. `headers` are added to the response.
    """

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

    def with_param(self, param: str) -> Self:
        """A copy with `param` set. A copy, because coalesced requests share one error object."""
        error = copy(self)
        error.param = param
        return error

    def with_location(self, location: str) -> Self:
        """A copy whose message is prefixed with `location`, such as `line 4`."""
        error = copy(self)
        error.message = f"{location}: {self.message}"
        return error


class InvalidRequestError(ChorusError):
    """The request is invalid: repeating it unchanged fails again."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidHttpError(InvalidRequestError):
    """The bytes on the connection are not a valid HTTP/1.1 request."""

    code = "invalid_http"


class MisdirectedRequestError(InvalidRequestError):
    """The Host header does not name this server."""

    status = 421
    code = "unknown_host"


class RequestTimeoutError(InvalidRequestError):
    """The client sent its request too slowly."""

    status = 408
    code = "request_timeout"


class UriTooLongError(InvalidRequestError):
    """The request line exceeds the size limit."""

    status = 414
    code = "uri_too_long"


class HeadTooLargeError(InvalidRequestError):
    """The headers are too large, or there are too many."""

    status = 431
    code = "headers_too_large"


class ExpectationFailedError(InvalidRequestError):
    """The Expect header asks for something other than 100-continue."""

    status = 417
    code = "expectation_failed"


class RangeNotSatisfiableError(InvalidRequestError):
    """None of the requested ranges overlaps the file."""

    status = 416
    code = "range_not_satisfiable"


class BodyTooLargeError(InvalidRequestError):
    """The body exceeds the size limit; the rest of it was not read."""

    status = 413
    code = "body_too_large"


class AudioTooLargeError(InvalidRequestError):
    """The audio is too large for a JSON response, which another endpoint returns, or for one job."""

    status = 413
    code = "audio_too_large"


class UnsupportedMediaTypeError(InvalidRequestError):
    """The Content-Type header does not name the format that is expected, or the body is compressed."""

    status = 415
    code = "unsupported_media_type"


class DocumentRefusedError(InvalidRequestError):
    """The document is damaged, not of the type that it is said to be, or has nothing to speak."""

    code = "document_refused"


class ClipRefusedError(InvalidRequestError):
    """The recording is damaged, or not good enough to clone a voice from; the message lists all defects."""

    code = "clip_refused"


class VoiceNotFoundError(InvalidRequestError):
    """There is no voice of that name to show or to remove."""

    status = 404
    code = "voice_not_found"


class VoiceExistsError(InvalidRequestError):
    """Another voice has the name, or one of the aliases."""

    status = 409
    code = "voice_exists"


class DeadlineTooShortError(InvalidRequestError):
    """Synthesis alone takes longer than the deadline allows, even on an idle server."""

    code = "deadline_too_short"


class ModelNotFoundError(InvalidRequestError):
    """The requested model is not the one that this server runs."""

    status = 404
    code = "model_not_found"


class JobNotFoundError(InvalidRequestError):
    """There is no such job, or it belongs to another API key."""

    status = 404
    code = "job_not_found"


class JobNotDoneError(InvalidRequestError):
    """The state of the job does not allow the operation."""

    status = 409
    code = "job_not_done"


class IdempotencyConflictError(InvalidRequestError):
    """The idempotency key was already used for a different request."""

    status = 409
    code = "idempotency_key_reused"


class NotAuthenticatedError(ChorusError):
    """The request has no valid API key."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotAllowedError(ChorusError):
    """The API key is valid but does not permit this request."""

    status = 403
    type = "permission_error"
    code = "not_allowed"


class OperatorKeyRequiredError(NotAllowedError):
    """The request is for operators, and has no operator's API key."""

    code = "operator_key_required"


class LinkInvalidError(NotAllowedError):
    """The link was altered, signed with another secret, or made with an API key that is no longer valid."""

    code = "link_invalid"


class LinkExpiredError(NotAllowedError):
    """The time of the link is over."""

    code = "link_expired"


class RateLimitedError(ChorusError):
    """The caller has exceeded its rate limit."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class LimitsUnavailableError(ChorusError):
    """Redis is unreachable, and the server is configured to refuse requests it cannot rate-limit."""

    status = 503
    code = "limits_unavailable"


class JobsFullError(ChorusError):
    """The number of queued jobs, or the size of finished ones, has reached its limit."""

    status = 503
    code = "jobs_full"


class JobShareFullError(ChorusError):
    """The caller's jobs, or the audio of its finished ones, take up its share of the store."""

    status = 429
    type = "rate_limit_error"
    code = "jobs_share_full"


class JobsUnavailableError(ChorusError):
    """The job store cannot be read or written at the moment."""

    status = 503
    code = "jobs_unavailable"


class VoicesUnavailableError(ChorusError):
    """The folder of voices cannot be read or written, or too many of operators' requests wait for it."""

    status = 503
    code = "voices_unavailable"


class TooManyConnectionsError(ChorusError):
    """Every connection that the server may have is in use."""

    status = 503
    code = "too_many_connections"


class NotServingError(ChorusError):
    """No worker is ready: they are starting, cannot load their model, or crash."""

    status = 503
    code = "no_worker"


class QueueFullError(ChorusError):
    """More utterances are queued than the limit allows."""

    status = 503
    code = "queue_full"


class MemoryFullError(ChorusError):
    """The audio and the bodies of requests under way leave no room for more, of this caller or of all."""

    status = 503
    code = "memory_full"


class TooManyStreamsError(ChorusError):
    """More event streams are open than the limit allows."""

    status = 503
    code = "too_many_streams"


class NoHeadroomError(ChorusError):
    """The host cannot make the audio of one more stream as fast as it plays."""

    status = 503
    code = "no_headroom"


class DeadlineUnreachableError(ChorusError):
    """The utterances already queued make the client's deadline unreachable."""

    status = 503
    code = "deadline_unreachable"


class DeadlineExceededError(ChorusError):
    """The time limit of the request passed before the audio was complete."""

    status = 504
    code = "deadline_exceeded"


class SynthesisError(ChorusError):
    """The engine failed on this utterance."""

    code = "synthesis_failed"


class PoisonedError(SynthesisError):
    """Two workers (up to four, while others crash as well) crashed or timed out on the utterance; it is not retried."""

    code = "utterance_poisoned"
