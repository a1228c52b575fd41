from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from balancer.documents import isolated_reading, reading
from balancer.documents.document import DocumentError, DocumentType
from tests.support.epubs import book, page


def written(folder: Path, content: bytes) -> Path:
    path = folder / "a document"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (book({"a.xhtml": page("<h1>Zoë</h1>Hello.")}, "Book"), DocumentType.EPUB),
        (b"text,character\nHello.,ada\nBye.", DocumentType.CSV),
    ],
)
def test_the_document_is_that_of_a_reading_in_this_process(tmp_path: Path, content: bytes, kind: DocumentType) -> None:
    found = isolated_reading.read(written(tmp_path, content), kind, name="-x\u00e9", max_characters=100)
    here = asdict(reading.read(content, kind, name="-x\u00e9", max_characters=100))
    assert json.loads(found) == json.loads(json.dumps(here))


def test_the_error_is_that_of_a_reading_in_this_process(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="it has no column `text`"):
        isolated_reading.read(written(tmp_path, b"no table"), DocumentType.CSV, max_characters=100)


def test_a_file_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_reading, "MAX_SECONDS", 0.001)
    with pytest.raises(DocumentError, match=r"takes more than 0\.001 s to read: send it in parts"):
        isolated_reading.read(written(tmp_path, b"Hello."), DocumentType.TEXT, max_characters=100)


def test_a_crash_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DocumentError, match="it must be a whole file of plain text"):
        isolated_reading.read(written(tmp_path, b"Hello."), DocumentType.TEXT, max_characters=100)
