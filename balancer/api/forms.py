"""Reads a form with one file (multipart/form-data) within limits. Starlette parses it, and keeps the file on disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from balancer.access.caller import caller_of
from balancer.api.reading import BodyMemory, body_too_large, check_body_head, media_type_of, validate_body
from balancer.audio.held_audio import Budget
from balancer.errors import InvalidRequestError, UnsupportedMediaTypeError

Form = TypeVar("Form", bound=BaseModel)

MEDIA_TYPE = "multipart/form-data"
MAX_FIELDS = 100
MAX_FIELD_BYTES = 16 * 2**10
MAX_OTHER_BYTES = 256 * 2**10
"""Bytes of a body beside its file: fields, and what the format adds."""
COPIES = 2
"""Copies of the file on disk, at most: the one received, and the one that is worked on."""


@asynccontextmanager
async def read_form(
    request: Request, schema: type[Form], file_field: str, *, max_file_bytes: int, budget: Budget
) -> AsyncIterator[tuple[Form, UploadFile]]:
    """The form's fields, validated as `schema`, and the file of the field `file_field`, which the block's end deletes.

    A field of `schema` that is a tuple may be repeated. `budget` counts the body until the end of the block.

    Raises UnsupportedMediaTypeError, BodyTooLargeError, MemoryFullError, InvalidRequestError.
    """
    if (media_type := media_type_of(request)) != MEDIA_TYPE:
        raise UnsupportedMediaTypeError(
            f"the body must be a form with a file: {MEDIA_TYPE} (got {media_type or 'none'})"
        )
    limit = max_file_bytes + MAX_OTHER_BYTES
    check_body_head(request, limit)
    with BodyMemory(budget, caller_of(request).identity) as taken:
        parser = _Parser(
            request.headers,
            counted_pieces(request, limit, taken),
            max_files=1,
            max_fields=MAX_FIELDS,
            max_part_size=MAX_FIELD_BYTES,
        )
        try:
            form = await _parse(parser)
            file = form.get(file_field)
            if not isinstance(file, UploadFile) or len(form.getlist(file_field)) > 1:
                raise InvalidRequestError(f"{file_field}: send exactly one file", param=file_field)
            yield validate_body(_fields(form, schema, file_field), schema), file
        finally:
            await run_in_threadpool(parser.close_files)


class _Parser(MultiPartParser):
    """Starlette's parser. Left to itself it leaves the file open where a body is cut off or not a form."""

    def close_files(self) -> None:
        """Close the file, and so delete it, whatever has become of the form."""
        for file in self._files_to_close_on_error:
            file.close()


async def counted_pieces(request: Request, limit: int, memory: BodyMemory) -> AsyncGenerator[bytes, None]:
    """The pieces of a body that is kept in a file. Raises BodyTooLargeError, MemoryFullError."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise body_too_large(limit)
        memory.take(COPIES * len(chunk))
        yield chunk


async def _parse(parser: MultiPartParser) -> FormData:
    """The form. Raises InvalidRequestError, and the errors of the body's pieces."""
    try:
        return await parser.parse()
    except MultiPartException as error:
        message = error.message
    except (FormParserError, UnicodeError) as error:
        message = str(error)
    raise InvalidRequestError(f"the form cannot be read: {message}", code="invalid_form")


def _fields(form: FormData, schema: type[BaseModel], file_field: str) -> dict[str, Any]:
    """The values by field, without the file. Raises InvalidRequestError."""
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name == file_field:
            continue
        if isinstance(value, UploadFile):
            raise InvalidRequestError(f"{ascii(name)[1:-1]}: must be text, not a file")
        known = schema.model_fields.get(name)
        if known is not None and get_origin(known.annotation) is tuple:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise InvalidRequestError(f"{ascii(name)[1:-1]}: is there twice")
        else:
            values[name] = value
    return values
