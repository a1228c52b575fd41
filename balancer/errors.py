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
from dataclasses import dataclass
from typing import ClassVar, Self


class ChorusError(Exception):
    """Base class.

    `message` tells the client what is wrong and what to do; `param` is the invalid field, or None. `retry_after` is in
    seconds. `headers` are added to the response. docs/api.md has the status and code of each class, with its docstring
    and `advice`, what the client is to do.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"
    advice: ClassVar[str] = "Report the `X-Request-Id` of the answer to the operator."

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
    advice = "Change what the message and `param` name."


class InvalidHttpError(InvalidRequestError):
    """The bytes on the connection are not a valid HTTP/1.1 request."""

    code = "invalid_http"
    advice = "Send a valid HTTP/1.1 request."


class MisdirectedRequestError(InvalidRequestError):
    """The Host header does not name this server."""

    status = 421
    code = "unknown_host"
    advice = (
        "Use one of the server's names; its operator adds names with `CHORUS_PUBLIC_URL` or `CHORUS_ALLOWED_HOSTS`."
    )


class RequestTimeoutError(InvalidRequestError):
    """The client sent its request too slowly."""

    status = 408
    code = "request_timeout"
    advice = "Send the request faster."


class UriTooLongError(InvalidRequestError):
    """The request line exceeds the size limit."""

    status = 414
    code = "uri_too_long"
    advice = "Send a shorter URL, or `POST` instead of `GET`."


class HeadTooLargeError(InvalidRequestError):
    """The headers are too large, or there are too many."""

    status = 431
    code = "headers_too_large"
    advice = "Send fewer or shorter headers."


class ExpectationFailedError(InvalidRequestError):
    """The Expect header asks for something other than 100-continue."""

    status = 417
    code = "expectation_failed"
    advice = "Leave the header out, or send `100-continue`."


class RangeNotSatisfiableError(InvalidRequestError):
    """None of the requested ranges overlaps the file."""

    status = 416
    code = "range_not_satisfiable"
    advice = "Ask for a range within the length that `Content-Range` states."


class BodyTooLargeError(InvalidRequestError):
    """The body exceeds the size limit; the rest of it was not read."""

    status = 413
    code = "body_too_large"
    advice = "Send less at once: a shorter text, fewer lines, a smaller file."


class AudioTooLargeError(InvalidRequestError):
    """The audio is too large for a JSON response, which another endpoint returns, or for one job."""

    status = 413
    code = "audio_too_large"
    advice = "Use `POST /tts` instead of `/tts-json`; for a job another format, or the text in parts."


class UnsupportedMediaTypeError(InvalidRequestError):
    """The Content-Type header does not name the format that is expected, or the body is compressed."""

    status = 415
    code = "unsupported_media_type"
    advice = "Send the `Content-Type` that the message names, and the body uncompressed."


class DocumentRefusedError(InvalidRequestError):
    """The document is damaged, not of the type that it is said to be, or has nothing to speak."""

    code = "document_refused"
    advice = "Save the document again as the message says."


class ClipRefusedError(InvalidRequestError):
    """The recording is damaged, or not good enough to clone a voice from; the message lists all defects."""

    code = "clip_refused"
    advice = "Record again; each defect is named with its remedy."


class VoiceNotFoundError(InvalidRequestError):
    """There is no voice of that name to show or to remove."""

    status = 404
    code = "voice_not_found"
    advice = "Use a name that `GET /v1/audio/voices` lists."


class VoiceExistsError(InvalidRequestError):
    """Another voice has the name, or one of the aliases."""

    status = 409
    code = "voice_exists"
    advice = "Choose another name, or send `replace=true`."


class DeadlineTooShortError(InvalidRequestError):
    """Synthesis alone takes longer than the deadline allows, even on an idle server."""

    code = "deadline_too_short"
    advice = "Allow more time, or send a shorter text."


class ModelNotFoundError(InvalidRequestError):
    """The requested model is not the one that this server runs."""

    status = 404
    code = "model_not_found"
    advice = "Use a model that `GET /v1/models` lists."


class JobNotFoundError(InvalidRequestError):
    """There is no such job, or it belongs to another API key."""

    status = 404
    code = "job_not_found"
    advice = "Use the id and the API key of `POST /queue`; ended jobs are deleted after some days."


class JobNotDoneError(InvalidRequestError):
    """The state of the job does not allow the operation."""

    status = 409
    code = "job_not_done"
    advice = "Poll the job's `statusUrl`, or follow its events."


class IdempotencyConflictError(InvalidRequestError):
    """The idempotency key was already used for a different request."""

    status = 409
    code = "idempotency_key_reused"
    advice = "Use another idempotency key for another request."


class NotAuthenticatedError(ChorusError):
    """The request has no valid API key."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    advice = "Send a valid API key, as `Authorization: Bearer …` or `X-API-Key: …`."


class NotAllowedError(ChorusError):
    """The API key is valid but does not permit this request."""

    status = 403
    type = "permission_error"
    code = "not_allowed"
    advice = "Ask the operator for a key that permits it; for a web page, for its origin in `CHORUS_CORS_ORIGINS`."


class OperatorKeyRequiredError(NotAllowedError):
    """The request is for operators, and has no operator's API key."""

    code = "operator_key_required"
    advice = "Send an API key of the role `operator`."


class LinkInvalidError(NotAllowedError):
    """The link was altered, signed with another secret, or made with an API key that is no longer valid."""

    code = "link_invalid"
    advice = "Make a new link."


class LinkExpiredError(NotAllowedError):
    """The time of the link is over."""

    code = "link_expired"
    advice = "Make a new link."


class RateLimitedError(ChorusError):
    """The caller has exceeded its rate limit."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    advice = "Wait as long as `Retry-After` says."


class LimitsUnavailableError(ChorusError):
    """The counters of rate limits cannot be used, and the server refuses requests that it cannot limit."""

    status = 503
    code = "limits_unavailable"
    advice = "Try again after `Retry-After`."


class JobsFullError(ChorusError):
    """The number of queued jobs, or the size of finished ones, has reached its limit."""

    status = 503
    code = "jobs_full"
    advice = "Try again after `Retry-After`."


class JobShareFullError(ChorusError):
    """The caller's jobs, or the audio of its finished ones, take up its share of the store."""

    status = 429
    type = "rate_limit_error"
    code = "jobs_share_full"
    advice = "Delete finished jobs (`DELETE /queue/{id}`), or wait for queued ones."


class JobsUnavailableError(ChorusError):
    """The job store cannot be read or written at the moment."""

    status = 503
    code = "jobs_unavailable"
    advice = "Try again after `Retry-After`; accepted jobs are not lost."


class VoicesUnavailableError(ChorusError):
    """The folder of voices cannot be read or written, or too many of operators' requests wait for it."""

    status = 503
    code = "voices_unavailable"
    advice = "Try again after `Retry-After`; if it stays so, the server's user cannot use `CHORUS_VOICES_DIR`."


class TooManyConnectionsError(ChorusError):
    """Every connection that the server may have is in use."""

    status = 503
    code = "too_many_connections"
    advice = "Try again after `Retry-After`, with fewer connections."


class NotServingError(ChorusError):
    """No worker is ready: they are starting, cannot load their model, or crash."""

    status = 503
    code = "no_worker"
    advice = "Try again after `Retry-After`; `GET /ready` has the reason."


class QueueFullError(ChorusError):
    """Too many utterances are queued, or too many texts, batches or files wait to be prepared."""

    status = 503
    code = "queue_full"
    advice = "Try again after `Retry-After`."


class MemoryFullError(ChorusError):
    """The audio and the bodies of requests under way leave no room for more, of this caller or of all."""

    status = 503
    code = "memory_full"
    advice = "Read the answers to earlier requests, send less at once, and try again after `Retry-After`."


class TooManyStreamsError(ChorusError):
    """More event streams are open than the limit allows."""

    status = 503
    code = "too_many_streams"
    advice = "Close other event streams, or poll without them."


class NoHeadroomError(ChorusError):
    """The host cannot make the audio of one more stream as fast as it plays."""

    status = 503
    code = "no_headroom"
    advice = 'Try again after `Retry-After`, or ask for the whole audio with `"stream": false`.'


class DeadlineUnreachableError(ChorusError):
    """The utterances already queued make the client's deadline unreachable."""

    status = 503
    code = "deadline_unreachable"
    advice = "Try again after `Retry-After`, or allow more time."


class DeadlineExceededError(ChorusError):
    """The time limit of the request passed before the audio was complete."""

    status = 504
    code = "deadline_exceeded"
    advice = "Allow more time, send a shorter text, or queue it as a job."


class SynthesisError(ChorusError):
    """The engine failed on this utterance."""

    code = "synthesis_failed"
    advice = "Try again once; otherwise report the `X-Request-Id` to the operator."


class PoisonedError(SynthesisError):
    """Two workers (up to four, while others crash as well) crashed or timed out on the utterance; it is not retried."""

    code = "utterance_poisoned"
    advice = "Do not repeat the text; report the `X-Request-Id` to the operator."


@dataclass(frozen=True)
class FurtherCode:
    """A code that errors have in place of that of their class."""

    status: int
    meaning: str
    advice: str


FURTHER_CODES = {
    "concurrency_limit_exceeded": FurtherCode(
        429, "As many of the caller's requests are in progress as may be.", "Wait for one to end."
    ),
    "invalid": FurtherCode(
        400, "The engine does not have the voice or parameter, or cannot use the voice's clip.", "Use another voice."
    ),
    "invalid_form": FurtherCode(400, "The body is not a valid form.", "Send `multipart/form-data`, as `curl -F` does."),
    "invalid_json": FurtherCode(
        400,
        "The body is not a JSON object, or not valid JSON.",
        "Send a JSON object; the message has the line and column of the fault.",
    ),
    "invalid_parameter": FurtherCode(
        400,
        "A parameter of the engine is out of its range.",
        "`GET /capabilities` has the ranges of all parameters.",
    ),
    "method_not_allowed": FurtherCode(405, "The path has other methods.", "Use a method that `Allow` names."),
    "not_found": FurtherCode(404, "There is no such path.", "`GET /docs` lists the endpoints."),
    "not_started": FurtherCode(
        503, "The server is starting, or fails to start.", "Try again after `Retry-After`; the server's log says why."
    ),
    "nothing_to_speak": FurtherCode(400, "The text has only markup and symbols.", "Send a text with words."),
    "text_too_long": FurtherCode(
        400, "The text exceeds the limit that `GET /capabilities` states.", "Send it in parts, or queue it as a job."
    ),
    "unknown_parameter": FurtherCode(
        400, "The endpoint or the engine has no such field.", "Leave it out; the message lists the fields."
    ),
    "unspeakable": FurtherCode(400, "The engine cannot pronounce any of the text.", "Send another text."),
    "unsupported_script": FurtherCode(
        400, "The text is in a script that the engine's language does not use.", "Send a text in that language."
    ),
    "too_many_streams": FurtherCode(
        429, "As many event streams of the caller are open as may be.", "Close others, or poll without them."
    ),
    "voice_not_allowed": FurtherCode(
        403, "The API key does not allow the voice.", "Use a voice of the key; the message lists them."
    ),
    "voice_not_found": FurtherCode(
        400, "A request for speech names a voice that does not exist.", "Use a voice that the message lists."
    ),
    "voice_not_supported": FurtherCode(
        400, "The engine cannot speak the voice.", "Use a voice that `GET /v1/audio/voices` lists."
    ),
}
"""By code. Some of these codes have a class as well, with another status."""
