"""`POST /documents`: the chapters of a text, Markdown or EPUB, or the jobs of a CSV table, ready to be queued."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.access.caller import caller_of
from balancer.api.audio_responses import BufferResponse
from balancer.api.forms import MEDIA_TYPE as FORM
from balancer.api.forms import counted_pieces, read_form
from balancer.api.reading import BodyMemory, check_body_head, media_type_of
from balancer.audio.buffers import AudioBuffer
from balancer.audio.held_audio import HeldAudio
from balancer.documents import isolated_reading
from balancer.documents.document import KINDS, MAX_FILE_BYTES, DocumentError, DocumentType
from balancer.errors import DocumentRefusedError, MemoryFullError, UnsupportedMediaTypeError
from balancer.runtime.thread_pool import PoolFullError, ThreadPool

FILE_FIELD = "file"
READERS = 2
"""Documents that are read at once, each by a process of its own."""
MAX_WAITING = 8
RETRY_SECONDS = 5.0
IN_MEMORY_BYTES = 2**20
"""A larger body is kept on the disk."""
MAX_NAME_CHARACTERS = 200


class DocumentForm(BaseModel):
    """The form of `POST /documents`, which has nothing beside its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChapterText(BaseModel):
    """A chapter."""

    title: Annotated[str, Field(description="Empty if it has none.")]
    text: Annotated[str, Field(description="Plain text, its heading included; not longer than a job's may be.")]


class JobText(BaseModel):
    """A row of a table."""

    text: str
    character: Annotated[str | None, Field(description="The voice; null if the row names none.")]


class DocumentText(BaseModel):
    """The texts of a document: chapters, or jobs if it is a table."""

    title: Annotated[str, Field(description="Its own title, or the name of its file; may be empty.")]
    chapters: list[ChapterText]
    jobs: list[JobText]


class DocumentRoutes:
    """The route, and the threads that wait for the processes which read documents."""

    def __init__(self, admission: Admission, held: HeldAudio, *, max_characters: int) -> None:
        """`max_characters` of a chapter: a longer one comes in parts."""
        self._admission = admission
        self._held = held
        self._max_characters = max_characters
        self._pool = ThreadPool("documents", READERS, max_waiting=MAX_WAITING)

    def close(self) -> None:
        """End the threads; does not wait for them."""
        self._pool.close()

    def routes(self) -> list[Route]:
        """The route, for Starlette."""
        return [Route("/documents", self.read, methods=["POST"])]

    async def read(self, request: Request) -> Response:
        """Read a document."""
        caller = caller_of(request)
        async with self._admission.admit(caller, 0, ()) as headers, self._received(request) as (upload, kind):
            work = partial(self._read, upload.file, kind, _name_of(upload), caller.identity)
            try:
                text = await self._pool.run(work)
            except DocumentError as error:
                raise DocumentRefusedError(f"the document cannot be read: {error}", param=FILE_FIELD) from error
            except PoolFullError as error:
                raise MemoryFullError(
                    "too many documents are being read; try again later", retry_after=RETRY_SECONDS
                ) from error
        return BufferResponse(self._held, text, media_type="application/json", headers=headers)

    @asynccontextmanager
    async def _received(self, request: Request) -> AsyncIterator[tuple[UploadFile, DocumentType]]:
        """The file of a form, or the body, which the block's end deletes, and its type."""
        if media_type_of(request) == FORM:
            async with read_form(
                request, DocumentForm, FILE_FIELD, max_file_bytes=MAX_FILE_BYTES, budget=self._held.files
            ) as (_, upload):
                media_type = (upload.content_type or "").partition(";")[0].strip().lower()
                yield upload, _kind_of(upload.filename or "", media_type)
            return
        kind = _kind_of("", media_type_of(request))
        check_body_head(request, MAX_FILE_BYTES)
        with (
            BodyMemory(self._held.files, caller_of(request).identity) as taken,
            tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as file,
        ):
            upload = UploadFile(file)  # type: ignore[arg-type]
            async for piece in counted_pieces(request, MAX_FILE_BYTES, taken):
                await upload.write(piece)
            await run_in_threadpool(file.seek, 0)
            yield upload, kind

    def _read(self, body: IO[bytes], kind: DocumentType, name: str, caller: str) -> AudioBuffer:
        """The DocumentText as JSON. Blocks. Raises DocumentError, MemoryFullError."""
        with tempfile.NamedTemporaryFile(prefix="chorus-document-") as file:
            shutil.copyfileobj(body, file)
            file.flush()
            document = isolated_reading.read(Path(file.name), kind, name=name, max_characters=self._max_characters)
        return self._held.write(caller, lambda answer: _write(answer, document))


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)


def _kind_of(name: str, media_type: str) -> DocumentType:
    """The type, by the name first: browsers do not know Markdown. Raises UnsupportedMediaTypeError."""
    kind = DocumentType.of_name(name) or DocumentType.of_media_type(media_type)
    if kind is None:
        raise UnsupportedMediaTypeError(
            f"the document must be {KINDS}: send it as a form whose field `{FILE_FIELD}` is a file of such a name, or "
            "as the body with Content-Type text/plain, text/markdown, application/epub+zip or text/csv"
        )
    return kind


def _name_of(upload: UploadFile) -> str:
    """The name of the file as a title."""
    stem = PurePosixPath((upload.filename or "").replace("\\", "/")).stem
    return "".join(character for character in stem if character.isprintable())[:MAX_NAME_CHARACTERS]
