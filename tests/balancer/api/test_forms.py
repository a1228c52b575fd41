"""Forms with a file, read within limits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from balancer.api.forms import COPIES, MAX_FIELDS, MAX_OTHER_BYTES, read_form
from balancer.api.responses import error_response
from balancer.audio.held_audio import Budget
from balancer.errors import ChorusError

MAX_FILE_BYTES = 1000
FILE = ("clip.wav", b"sound")
LARGE = 2 * 2**20


class Form(BaseModel):
    name: str
    aliases: tuple[str, ...] = ()


class Service:
    """A route that reads a form, and the budget that counts it."""

    def __init__(self, *, max_file_bytes: int = MAX_FILE_BYTES, limit: int = 100 * LARGE) -> None:
        self.budget = Budget(limit, 1.0)
        self.counted = 0

        async def read(request: Request) -> Response:
            async with read_form(request, Form, "clip", max_file_bytes=max_file_bytes, budget=self.budget) as (
                form,
                file,
            ):
                self.counted = self.budget.taken
                return JSONResponse({"form": form.model_dump(), "size": len(file.file.read())})

        app = Starlette(routes=[Route("/", read, methods=["POST"])], exception_handlers={ChorusError: error_response})
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")

    async def refusal(
        self, content: bytes, content_type: str = "multipart/form-data; boundary=x"
    ) -> tuple[int, str, str]:
        """Status, code and message of the answer to a body, of which nothing is counted any more."""
        response = await self.client.post("/", content=content, headers={"Content-Type": content_type})
        error = response.json()["error"]
        assert self.budget.taken == 0
        return response.status_code, error["code"], error["message"]


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return f"--x\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


NAME, CLIP, END = part("name", b"ada"), part("clip", b"sound", "clip.wav"), b"--x--\r\n"


async def test_the_fields_and_the_file_are_counted_while_they_are_used() -> None:
    service = Service()
    response = await service.client.post("/", data={"name": "ada", "aliases": ["a", "b"]}, files={"clip": FILE})
    assert response.json() == {"form": {"name": "ada", "aliases": ["a", "b"]}, "size": 5}
    assert service.counted == COPIES * int(response.request.headers["Content-Length"])
    assert service.budget.taken == 0


async def test_a_large_file_lies_on_disk_and_is_whole() -> None:
    service = Service(max_file_bytes=LARGE)
    response = await service.client.post("/", data={"name": "ada"}, files={"clip": ("clip.wav", b"x" * LARGE)})
    assert response.json()["size"] == LARGE


async def test_a_body_that_is_too_large_is_refused_with_and_without_a_length() -> None:
    service = Service()
    body = NAME + part("clip", b"x" * (MAX_FILE_BYTES + MAX_OTHER_BYTES), "clip.wav") + END
    assert (await service.refusal(body))[:2] == (413, "body_too_large")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = await service.client.post("/", content=pieces(), headers=headers)
    assert response.status_code == 413
    assert service.budget.taken == 0


async def test_a_body_without_room_is_refused() -> None:
    assert (await Service(limit=100).refusal(NAME + CLIP + END))[:2] == (503, "memory_full")


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/mixed; boundary=x"])
async def test_another_media_type_is_refused(content_type: str) -> None:
    assert (await Service().refusal(NAME + CLIP + END, content_type))[:2] == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NAME + END, "clip: send exactly one file"),
        (NAME + part("clip", b"sound") + END, "clip: send exactly one file"),
        (NAME + CLIP + CLIP + END, "Too many files"),
        (NAME + CLIP + part("clip", b"text") + END, "clip: send exactly one file"),
        (part("name", b"ada", "name.txt") + END, "clip: send exactly one file"),
        (CLIP + END, "name: Field required"),
        (NAME + NAME + CLIP + END, "name: is there twice"),
        (NAME + CLIP + part("a\\nb", b"") * (MAX_FIELDS + 1) + END, "Too many fields"),
        (NAME + CLIP + part("description", b"x" * 20_000) + END, "Part exceeded maximum size"),
        (b"no form", "the form cannot be read"),
        (b"--x\r\n" + b"A: b\r\n" * 1000, "the form cannot be read"),
        (b"--x\r\nA: " + b"b" * 10_000, "the form cannot be read"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n" + END, "the form cannot be read"),
        (b"", "clip: send exactly one file"),
        (NAME + CLIP.removesuffix(b"\r\n"), "clip"),
    ],
)
async def test_a_form_that_is_refused(content: bytes, message: str) -> None:
    status, code, text = await Service().refusal(content)
    assert (status, code) in {(400, "invalid_request"), (400, "invalid_form")}
    assert message in text


@pytest.mark.parametrize("parameters", ["", "; boundary=" + "x" * 1000, "; boundary=x; charset=undefined"])
async def test_parameters_of_the_media_type_that_are_refused(parameters: str) -> None:
    content = part("name", b"\xff.\xff") + CLIP + END
    assert (await Service().refusal(content, f"multipart/form-data{parameters}"))[:2] == (400, "invalid_form")
