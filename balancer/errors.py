"""Every error that a client can be answered with, each knowing its HTTP status and OpenAI-shaped body.

ChorusError
├── InvalidRequestError            400  the body does not say what to speak, or asks what is not offered
│   ├── BodyTooLargeError          413
│   ├── UnsupportedMediaTypeError  415
│   └── ModelNotFoundError         404
├── NotAuthenticatedError          401
├── NotServingError                503  no worker can speak just now
├── LineFullError                  503  too many wait already
├── DeadlineUnreachableError       503  it would not be spoken by its deadline, so it is not begun
├── DeadlineExceededError          504  not spoken in time
└── SynthesisError                 500  the engine failed on this utterance
    └── PoisonedError              500  the utterance killed two workers
"""

from __future__ import annotations

from typing import Any, ClassVar


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
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.retry_after = retry_after

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


class ModelNotFoundError(InvalidRequestError):
    """The model asked for is not the one that runs here."""

    status = 404
    code = "model_not_found"


class NotAuthenticatedError(ChorusError):
    """No valid API key came with the request."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotServingError(ChorusError):
    """No worker is up, or will be soon."""

    status = 503
    code = "no_worker"


class LineFullError(ChorusError):
    """More utterances wait than the limit allows."""

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
