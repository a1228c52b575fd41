"""The JSON body of an error."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from balancer.errors import ChorusError


class ErrorDetail(BaseModel):
    """An error, in the shape of OpenAI's API."""

    message: Annotated[str, Field(description="What is wrong and what to do.")]
    type: Annotated[str, Field(description="The class of the error, such as `invalid_request_error`.")]
    param: Annotated[str | None, Field(description="The invalid field, if there is one.")]
    code: Annotated[str, Field(description="The kind of error, for programs.")]


class Error(BaseModel):
    """The body of every error response."""

    error: ErrorDetail

    @classmethod
    def of(cls, error: ChorusError) -> Error:
        """The body for an error."""
        # Not validated: the message may quote input of the client that is not valid Unicode.
        detail = ErrorDetail.model_construct(message=error.message, type=error.type, param=error.param, code=error.code)
        return cls.model_construct(error=detail)
