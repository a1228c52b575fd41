"""`POST /documents` of a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from balancer.access.admission import Admission
from balancer.access.rate_limits import UNLIMITED, RateLimits
from balancer.api.documents import DocumentRoutes, DocumentText
from balancer.audio.held_audio import HeldAudio
from balancer.documents.document import MAX_FILE_BYTES
from balancer.errors import MemoryFullError
from balancer.metrics import Metrics
from balancer.settings.limits import MemorySettings
from tests.support.epubs import archive, book, page
from tests.support.harness import TIMEOUT, Server, serve_stub


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(max_text_characters=1000, max_job_text_characters=1000) as server:
        yield server


def document(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert DocumentText.model_validate(response.json()).model_dump() == response.json()
    found: dict[str, Any] = response.json()
    return found


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


def test_a_form_with_a_file(server: Server) -> None:
    files = {"file": ("My Notes.md", b"# One\n\na\n\n# Two\n\nb", "application/octet-stream")}
    assert document(server.client.post("/documents", files=files)) == {
        "title": "My Notes",
        "chapters": [{"title": "One", "text": "One.\n\na"}, {"title": "Two", "text": "Two.\n\nb"}],
        "jobs": [],
    }


@pytest.mark.parametrize(
    ("content", "media_type", "text"),
    [
        (b"Zo\xc3\xab.", "text/plain; charset=utf-8", "Zoë."),
        (b"*Hello.*", "text/markdown", "Hello."),
        (book({"a.xhtml": page("Hello.")}), "Application/EPUB+zip", "Hello."),
    ],
)
def test_a_body(server: Server, content: bytes, media_type: str, text: str) -> None:
    response = server.client.post("/documents", content=content, headers={"Content-Type": media_type})
    assert document(response)["chapters"] == [{"title": "", "text": text}]


def test_a_table_is_jobs(server: Server) -> None:
    response = server.client.post(
        "/documents", content=b"text,character\nHello.,default\nBye.,", headers={"Content-Type": "text/csv"}
    )
    assert document(response)["jobs"] == [
        {"text": "Hello.", "character": "default"},
        {"text": "Bye.", "character": None},
    ]


def test_chapters_can_be_queued_as_they_are(server: Server) -> None:
    files = {"file": ("a.txt", b"A sentence. " * 200)}
    chapters = document(server.client.post("/documents", files=files))["chapters"]
    assert [chapter["title"] for chapter in chapters] == ["(1)", "(2)", "(3)"]
    for chapter in chapters:
        assert server.client.post("/queue", json={"text": chapter["text"]}).status_code == 202


def test_a_document_that_cannot_be_read(server: Server) -> None:
    files = {"file": ("a.epub", archive({"a.txt": "x"}))}
    assert refusal(server.client.post("/documents", files=files)) == (
        400,
        "document_refused",
        "the document cannot be read: it is a zip archive, but no EPUB",
    )


@pytest.mark.parametrize("media_type", ["", "application/pdf", "application/octet-stream"])
def test_another_type(server: Server, media_type: str) -> None:
    response = server.client.post("/documents", content=b"x", headers={"Content-Type": media_type})
    status, code, message = refusal(response)
    assert (status, code) == (415, "unsupported_media_type")
    assert "plain text (.txt), Markdown (.md), EPUB (.epub) or CSV (.csv)" in message
    assert refusal(server.client.post("/documents", files={"file": ("a.pdf", b"x")}))[0] == 415


def test_a_form_without_a_file(server: Server) -> None:
    response = server.client.post("/documents", files={"other": ("a.txt", b"x")})
    assert refusal(response) == (400, "invalid_request", "file: send exactly one file")


def test_a_document_that_is_too_large(server: Server) -> None:
    content = b"x" * (MAX_FILE_BYTES + 1)
    response = server.client.post("/documents", content=content, headers={"Content-Type": "text/plain"})
    assert refusal(response)[:2] == (413, "body_too_large")


def test_hostile_names(server: Server) -> None:
    for name in ("../../etc/passwd\x00.txt", "--help.txt", "\u202e\ud7ff.txt", "x" * 1000 + ".txt"):
        assert len(document(server.client.post("/documents", files={"file": (name, b"x")}))["title"]) <= 200


def test_a_document_counts_as_a_request() -> None:
    with serve_stub(rate_requests_per_minute=1) as server:
        headers = {"Content-Type": "text/plain"}
        assert server.client.post("/documents", content=b"x", headers=headers).status_code == 200
        assert refusal(server.client.post("/documents", content=b"x", headers=headers))[:2] == (
            429,
            "rate_limit_exceeded",
        )


async def test_past_the_limit_of_waiting_documents_one_is_refused() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"Hello.", "more_body": False}

    admission = Admission(RateLimits(), UNLIMITED, Metrics("hibari"), timeout=TIMEOUT)
    routes = DocumentRoutes(admission, HeldAudio(MemorySettings()), max_characters=1000)
    routes.close()  # no thread takes work any more, as if all were busy and as many calls waited as may
    headers, client = [(b"content-type", b"text/plain")], ("192.0.2.1", 1)
    with pytest.raises(MemoryFullError) as refused:
        await routes.read(Request({"type": "http", "headers": headers, "client": client, "state": {}}, receive))
    assert refused.value.message == "too many documents are being read; try again later"
    assert refused.value.retry_after
